#!/usr/bin/env bash
# The trainer on a GPU: devices, every strategy, the tests that need a GPU, as Markdown.
#
#   benches/gpu/run.sh pack          here: builds, strips and packs everything into target/gpu
#   target/gpu/run.sh                there: runs it and prints the table
#
# The machine with the GPU needs no cargo: only a python3 that holds PyTorch 2.11.0 with CUDA
# (tested against none yet; written for 2.11.0+cu130), whose libraries are used. Nothing is
# downloaded. Benchmarks use the built-in dataset, so no data is carried over.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

pack() {
    cd "$here/../.."
    local out=target/gpu
    server/trainer/fetch-libtorch.sh
    cargo build --release -p pba-trainer
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
    du -sh "$out"
    echo "carry $out over, and run run.sh in it"
}

run() {
    cd "$here"
    local libraries version
    libraries="$(python3 -c 'import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("torch").origin).parent / "lib")')"
    version="$(python3 -c 'import importlib.metadata
print(importlib.metadata.version("torch"))')"
    export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

    echo "## The trainer on a GPU"
    echo
    echo "PyTorch $version, $(nproc) CPU cores, $(date -u +%F)."
    if command -v nvidia-smi > /dev/null; then
        nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
    fi
    echo
    echo '```json'
    ./pba-trainer devices
    echo '```'
    echo
    local status=0
    for model in wrn-40-2 wrn-28-2; do
        ./pba-trainer bench --strategy all --model "$model" --population 16 --steps 62 --val-size 10000 \
            --device cuda || status=1
        echo
    done
    echo "### Tests"
    echo
    echo '```'
    ./pba-trainer-tests --ignored --nocapture gpu || status=1
    echo '```'
    return "$status"
}

case "${1:-run}" in
    pack) pack ;;
    run) run ;;
    *) echo "usage: $0 [pack|run]" >&2; exit 2 ;;
esac
