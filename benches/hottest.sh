#!/bin/sh
# Where one core's time goes in works (a) and (b): the functions with most self time, by sampling.
#
#     benches/hottest.sh [FOLDER_OF_PBA_RATE] > benches/results/hottest.txt
#
# Uses the processor's cycle counter where there is one, else the kernel's clock (virtual machines).
# Samples begin when the pictures are made. Inlined code counts for the function that it is in.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-}
if [ -z "$folder" ]; then
    cargo build --release --locked -p pba-benches --bin pba-rate >&2
    folder=${CARGO_TARGET_DIR:-target}/release
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if perf stat -e cycles true 2>&1 | grep -q 'not supported'; then event=cpu-clock; else event=cycles; fi

echo "Self time by function, $(date -u +%Y-%m-%d), commit $(git describe --always --dirty 2>/dev/null || echo unknown),"
echo "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo), event $event."
for size in 32 224; do
    # The pictures are as many as 150 MB hold, and made in a second or two.
    perf record --quiet -e "$event" -F 1999 -D 4000 -o "$work/perf" -- \
        "$folder/pba-rate" --size "$size" --seconds 9 > "$work/rate" 2> "$work/errors" || { cat "$work/errors" >&2; exit 1; }
    echo
    echo "## ${size}x${size}: $(cat "$work/rate")"
    echo
    perf report -i "$work/perf" --stdio --no-children -g none --percent-limit 0.7 --sort symbol 2> /dev/null \
        | grep -v '^#' | grep -v '^ *$' | sed 's/ *$//' | head -25
done
