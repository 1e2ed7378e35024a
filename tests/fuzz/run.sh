#!/bin/sh
# Fuzzes targets one after another, and ends with a table of what came of it: `make fuzz`.
#
#   tests/fuzz/run.sh SECONDS TARGET...
#
# PBA_FUZZER names the program, which `make fuzz` builds; for the target `python` PBA_PYTHON names a Python with
# atheris. CORPUS is where inputs are kept between runs, and what fails (default target/fuzz).
set -u
seconds=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
corpus=${CORPUS:-$here/../../target/fuzz}
mkdir -p "$corpus"
# Files that targets write need no disk.
[ -d /dev/shm ] && [ -w /dev/shm ] && scratch=$(mktemp -d /dev/shm/pba-fuzz.XXXXXX) || scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
failed=0
table="$corpus/table.$$"
: > "$table"
for target in "$@"; do
    folder="$corpus/$target"
    mkdir -p "$folder/inputs" "$folder/found" "$scratch/$target"
    options="-max_total_time=$seconds -timeout=20 -rss_limit_mb=3000 -print_final_stats=1 -artifact_prefix=$folder/found/"
    echo "== $target: $seconds s"
    if [ "$target" = python ]; then
        TMPDIR="$scratch/$target" "${PBA_PYTHON:-python3}" "$here/../../client/python/tests/fuzz.py" $options -max_len=16384 \
            "$folder/inputs" "$here/seeds/stream" > "$folder/log" 2>&1
    else
        PBA_FUZZ=$target PBA_FUZZ_SEEDS=$folder/inputs "$PBA_FUZZER" -runs=0 > /dev/null 2>&1
        TMPDIR="$scratch/$target" PBA_FUZZ=$target "$PBA_FUZZER" $options -max_len="$(cat "$folder/inputs.length")" \
            -dict="$folder/inputs.words" "$folder/inputs" > "$folder/log" 2>&1
    fi
    status=$?
    [ $status -eq 0 ] && outcome=nothing || { outcome="**failed**: $folder/found"; failed=1; }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/log")
    edges=$(grep -o 'cov: [0-9]*' "$folder/log" | tail -n 1 | cut -d ' ' -f 2)
    inputs=$(grep -o 'corp: [0-9]*' "$folder/log" | tail -n 1 | cut -d ' ' -f 2)
    echo "| $target | $seconds | ${runs:-?} | ${edges:-?} | ${inputs:-?} | $outcome |" | tee -a "$table"
    [ $status -eq 0 ] || grep -v '^#' "$folder/log" | tail -n 12
done
echo
echo "| target | seconds | executions | edges | inputs | found |"
echo "| --- | ---: | ---: | ---: | ---: | --- |"
cat "$table"
rm "$table"
exit $failed
