#!/usr/bin/env bash
# The trainer on a GPU, as Markdown: is it right, how fast is it in which way, and the whole search.
#
#   benches/gpu/run.sh pack [DATASET]   here: builds, strips and packs everything into target/gpu
#   target/gpu/run.sh measure           there: correctness, then every way to train, within 8 minutes
#   target/gpu/run.sh search            there: the whole search with wrn-28-2; within 10 minutes a call, and the
#                                       next call goes on
#   target/gpu/run.sh compare           there: what that schedule is worth, likewise
#
# With --dry-run at the end, all of these do all of it but CUDA: on the CPU, with tiny sizes.
#
# The machine with the GPU needs no cargo, only bash and the libtorch with CUDA that pba-trainer was built for:
# that of a python3 which holds PyTorch, or the folder that LIBTORCH_LIB names. Nothing is downloaded. DATASET is
# anything that pba-trainer reads, and is carried along; without it the built-in images are used. PBA_GPU_OUT, a
# folder, is where the search is kept (default: out, beside this script, and out-dry for dry runs).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
packed_mib_max=60
began=$SECONDS
# For what is said of a part whose output goes elsewhere.
exec 3>&1

pack() {
    local out=target/gpu data=
    if [[ -n "${1:-}" ]]; then
        data="$(realpath -e "$1")"
    fi
    cd "$here/../.."
    server/trainer/fetch-libtorch.sh
    cargo build --release -p pba-trainer
    rm -rf "$out"
    mkdir -p "$out"
    strip -o "$out/pba-trainer" target/release/pba-trainer
    local tests
    tests="$(cargo test --release -p pba-trainer --bin pba-trainer --no-run --message-format json |
        python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]: print(message["executable"])')"
    strip -o "$out/pba-trainer-tests" "$tests"
    cp benches/gpu/run.sh "$out/run.sh"
    if [[ -n "$data" ]]; then
        cp -rL "$data" "$out/dataset"
        chmod -R u+w "$out/dataset"
    fi
    local mib
    mib="$(du -sm "$out" | cut -f1)"
    if ((mib > packed_mib_max)); then
        echo "$out has $mib MiB, more than $packed_mib_max: name a smaller dataset" >&2
        exit 1
    fi
    echo "carry $out over ($mib MiB), and run run.sh in it"
}

# Names the libraries to run with.
find_libraries() {
    local libraries="$libtorch_lib"
    if [[ -z "$libraries" && -z "$dry" ]]; then
        libraries="$(python3 -c 'import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib")')"
    fi
    if [[ -n "$libraries" ]]; then
        export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
}

# Runs a part if its seconds are left, and goes on when it fails or takes too long.
part() {
    local seconds="$1" left=$((budget - SECONDS + began))
    shift
    if ((left < seconds)); then
        echo "left out, as $left s are left: $*" >&3
        failed=1
        return
    fi
    timeout --signal=TERM --kill-after=10 "$seconds" "$@" || {
        local status=$?
        { echo; echo "failed with $status: $*"; } >&3
        failed=1
    }
    echo
}

bench() {
    local seconds="$1"
    shift
    part "$seconds" ./pba-trainer bench --device "$device" --population "$population" --steps "$steps" \
        --val-size "$val_size" --batch-size "$batch_size" "$@"
}

measure() {
    budget=480 failed=
    local model larger
    if [[ -n "$dry" ]]; then
        population=2 steps=2 val_size=20 batch_size=8 model=tiny larger=wrn-10-1
    else
        population=16 steps=31 val_size=10000 batch_size=128 model=wrn-28-2 larger=wrn-40-2
    fi
    echo "## The trainer on a GPU"
    echo
    echo "$(nproc) CPU cores, $(date -u +%F)${dry:+, a dry run on the CPU}."
    if [[ -z "$dry" ]] && command -v nvidia-smi > /dev/null; then
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader || true
    fi
    echo
    echo '```json'
    part 60 ./pba-trainer devices
    echo '```'
    echo
    echo "### Correctness"
    echo
    echo '```'
    if [[ -z "$dry" ]]; then
        part 120 ./pba-trainer-tests --ignored --nocapture --test-threads 1 gpu
    elif [[ -x pba-trainer-tests ]]; then
        part 120 ./pba-trainer-tests stacked_equals folded a_stem_as what_is_restored
    else
        echo "left out: there is no pba-trainer-tests"
    fi
    echo '```'
    echo
    echo "### One generation of the search"
    echo
    rm -rf generation
    whole_search 3 generation 60
    echo "### Checkpoints of $larger"
    echo
    bench 60 --model "$larger" --strategy auto --checkpoints --rounds 4 > checkpoints.md
    # Without what a search would report.
    sed '/^{/d' checkpoints.md
    echo "### Ways to train $model"
    echo
    bench 90 --model "$model" --strategy graphs --streams 1,2,4,8,16 --precision bf16
    bench 40 --model "$model" --strategy graphs --streams 4 --precision fp32
    bench 40 --model "$model" --strategy graphs --streams 4 --precision bf16 --cudnn-measures
    bench 60 --model "$model" --strategy stacked --precision bf16
    bench 60 --model "$model" --strategy sequential --precision bf16
    echo "### Ways to train $larger"
    echo
    bench 60 --model "$larger" --strategy graphs --streams 2,4,8 --precision bf16
    bench 60 --model "$larger" --strategy stacked --precision bf16
    return "${failed:-0}"
}

# Shows what a trainer told: events of these kinds and those of all jobs, why it refused to start, and the last of
# its progress.
told() {
    sed -n -e 's/"schedule":{.*/"schedule":...}/' \
        -e "/\"event\":\"\(resumed\|device\|spent\|interrupted\|failed\|$1\)\"/s/^/    /p" -e '/^{"error"/s/^/    /p' "$2"
    sed -n -e '/"event":"progress"/s/^/    /p' "$2" | tail -n 1
    echo
}

# Runs a search of some epochs in a folder for some seconds, and tells what took how long.
whole_search() {
    local epochs="$1" folder="$2" seconds="$3" data=shapes train=4000 val=6000
    if [[ -e dataset ]]; then
        data=dataset val=10000
    fi
    local spec="{\"name\": \"gpu\", \"model\": \"wrn-28-2\", \"population\": 16, \"epochs\": $epochs,
        \"train_size\": $train, \"val_size\": $val, \"device\": \"cuda\"}"
    if [[ -n "$dry" ]]; then
        spec="{\"name\": \"gpu\", \"model\": \"tiny\", \"population\": 2, \"epochs\": $epochs,
            \"train_size\": 64, \"val_size\": 20, \"device\": \"cpu\"}"
    fi
    mkdir -p "$folder"
    echo "$spec" > "$folder/spec.json"
    # By itself: a signal ends it between two steps, and it saves what it has.
    part "$seconds" ./pba-trainer search --detached --spec "$folder/spec.json" --dataset "$data" \
        --dir "$folder" --cache "$folder/cache" > "$folder/told.jsonl"
    told 'done' "$folder/told.jsonl"
}

search() {
    budget=590 failed=
    echo "## The whole search${dry:+, a dry run on the CPU}"
    echo
    if [[ -n "$dry" ]]; then
        whole_search 6 "$out/search" 120
    else
        # What is left of 10 minutes is for the end: the members are saved.
        whole_search 200 "$out/search" 570
    fi
    # A schedule that is there may be an earlier one.
    if [[ -z "$failed" && -e "$out/search/schedule.json" ]]; then
        echo "The schedule is $out/search/schedule.json."
        return
    fi
    echo "It is not done; run this again."
    return "${failed:-0}"
}

# The schedule of the search beside base augmentation, TrivialAugment and the paper's schedule: as a search, a
# population of 16, as each arm is trained with four seeds.
compare() {
    budget=590 failed=
    local data=shapes seconds=570
    local folder="$out/comparison" fields='"model": "wrn-28-2", "epochs": 200, "train_size": 4000, "seeds": 4'
    if [[ -e dataset ]]; then
        data=dataset
    fi
    if [[ -n "$dry" ]]; then
        fields='"model": "tiny", "epochs": 2, "train_size": 64, "seeds": 2' seconds=120
    fi
    echo "## The comparison${dry:+, a dry run on the CPU}"
    echo
    if [[ ! -e "$out/search/schedule.json" ]]; then
        echo "There is no schedule yet: run \`$0 search\` first." >&2
        return 1
    fi
    mkdir -p "$folder/schedules"
    cp "$out/search/schedule.json" "$folder/schedules/gpu.json"
    echo "{\"name\": \"gpu-compared\", \"device\": \"$device\", $fields, \"base\": \"pad_crop:4,flip,cutout:16\",
        \"arms\": [\"none\", \"trivial-augment-wide\", \"cifar10-pba\", \"gpu\"]}" > "$folder/spec.json"
    part "$seconds" ./pba-trainer compare --detached --spec "$folder/spec.json" --dataset "$data" \
        --dir "$folder" --cache "$folder/cache" > "$folder/told.jsonl"
    told 'scored\|compared' "$folder/told.jsonl"
    if [[ -z "$failed" && -e "$folder/report.md" ]]; then
        cat "$folder/report.md"
        return
    fi
    echo "It is not done; run this again."
    return "${failed:-0}"
}

usage() {
    echo "usage: $0 pack [DATASET] | measure | search | compare [--dry-run]" >&2
    exit 2
}

command="${1:-}" dry= device=cuda
shift || true
if (($#)) && [[ "${!#}" == --dry-run ]]; then
    dry=1 device=cpu
    set -- "${@:1:$#-1}"
fi
case "$command" in
    pack) pack "$@" ;;
    measure | search | compare)
        (($# == 0)) || usage
        out="$(realpath -m "${PBA_GPU_OUT:-$here/out${dry:+-dry}}")"
        libtorch_lib="${LIBTORCH_LIB:+$(realpath -e "$LIBTORCH_LIB")}"
        cd "$here"
        if [[ ! -x pba-trainer ]]; then
            echo "there is no pba-trainer in $here: run \`$0 pack\` first, and then target/gpu/run.sh" >&2
            exit 1
        fi
        find_libraries
        "$command" "$@"
        ;;
    *) usage ;;
esac
