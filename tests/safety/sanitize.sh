#!/bin/sh
# Runs the units that have unsafe code, and a server that the Python client's tests use, with AddressSanitizer: every
# read or write of memory that is not there, or no longer there, ends the process.
#
# Wants nightly Rust; NIGHTLY names another one than the newest. `make test` has to have made .venv before.
set -eu
cd "$(dirname "$0")/../.."
nightly=${NIGHTLY:-nightly}
target=x86_64-unknown-linux-gnu
if ! cargo "+$nightly" --version > /dev/null 2>&1; then
    echo "this needs nightly Rust: rustup toolchain install $nightly" >&2
    exit 1
fi
export CARGO_TARGET_DIR="${SANITIZE_TARGET_DIR:-target/sanitize}" CARGO_PROFILE_DEV_DEBUG=line-tables-only
export RUSTFLAGS="-Zsanitizer=address"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# What is found is written here as well, so that no harness hides it. LSan wants to trace its process, which not every
# machine allows.
export ASAN_OPTIONS="log_path=$logs/found:detect_leaks=0"

cargo "+$nightly" test --locked --target "$target" -p pba-augment -p pba-datasets -p pba-wire -p pba-files \
    -p pba-client -p pba-server --lib --no-fail-fast
cargo "+$nightly" test --locked --target "$target" -p pba-augment --test levels --test frames --test render --test draws
cargo "+$nightly" test --locked --target "$target" -p pba-datasets --test all
cargo "+$nightly" build --locked --target "$target" -p pba-server --bin pba
# Beside it the trainer, which is not instrumented: requests for jobs are read then, too.
ln -sf "$PWD/target/debug/pba-trainer" "$CARGO_TARGET_DIR/$target/debug/pba-trainer"
PBA_BIN="$CARGO_TARGET_DIR/$target/debug/pba" .venv/bin/python -m pytest -q client/python/tests "$@"
if [ -n "$(ls "$logs")" ]; then
    cat "$logs"/*
    exit 1
fi
