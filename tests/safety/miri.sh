#!/bin/sh
# Runs under Miri what it can run: plain and concurrent Rust, and vector instructions up to AVX2. What it cannot run,
# and why, is in benches/results/safety.md.
#
# Wants nightly Rust with Miri; NIGHTLY names another one than the newest.
set -eu
cd "$(dirname "$0")/../.."
nightly=${NIGHTLY:-nightly}
if ! cargo "+$nightly" miri --version > /dev/null 2>&1; then
    echo "this needs Miri: rustup toolchain install $nightly --component miri,rust-src" >&2
    exit 1
fi
export CARGO_TARGET_DIR="${MIRI_TARGET_DIR:-target/miri}"
# Each test takes a thousand times as long here, so one of random input tries a few.
export PROPTEST_CASES=4

# miri PACKAGE [TEST...]: the unit tests of a crate. Two are skipped, which have no unsafe code and take minutes: one
# flips every bit of a message, one compares all boxes of a few pixels with each other.
miri() {
    package=$1
    shift
    echo "== $package $*"
    MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}" \
        cargo "+$nightly" miri test --locked -p "$package" --lib -- --skip every_flipped_bit --skip a_box_contains "$@"
}

miri pba-types
miri pba-wire
# With its vector code.
export RUSTFLAGS="-C target-feature=+avx2,+bmi2"
miri pba-augment simd::expand
miri pba-augment simd::philox
