#!/bin/sh
# Says what this machine still lacks before anything is built, all of it at once, with the command
# that installs it. `make run` and `make test` begin with it.
#
#   deploy/prerequisites.sh server|trainer|tests [PYTHON]
#
# `server` needs Rust and a C compiler; `trainer` also a C++ compiler, and Python with pip, which
# fetches libtorch; `tests` need the same.
set -u

what="${1:-tests}"
python="${2:-${PYTHON:-python3}}"
case "$what" in
    server | trainer | tests) ;;
    *)
        echo "usage: $0 server|trainer|tests [PYTHON]" >&2
        exit 2
        ;;
esac
python_min=3.9
# The oldest glibc that the wheels of libtorch run on.
glibc_min=2.28

problems=""
packages=""
# A problem, and the package that solves it: on Debian and Ubuntu, and on Fedora and RHEL.
lacks() {
    problems="$problems
  - $1"
    if [ -n "${2:-}" ]; then
        if command -v apt-get > /dev/null 2>&1; then package="$2"; else package="${3:-$2}"; fi
        case " $packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
    fi
}

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

if ! command -v cargo > /dev/null 2>&1; then
    lacks "cargo is missing: install Rust with rustup (Debian 13 and Ubuntu 24.04 have a package of that name), and see that ~/.cargo/bin is in PATH"
else
    # rustup gives the version that rust-toolchain.toml names, unless another cargo is before it in PATH.
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")"
    # It may fetch that version first, and says so.
    found="$(cd "$(dirname "$0")/.." && cargo --version | cut -d ' ' -f 2)"
    if [ -z "$found" ]; then
        lacks "cargo does not run here, for the reason that it gave above"
    elif ! at_least "$wanted" "$found"; then
        lacks "cargo is $found; Rust $wanted or newer is needed: install it with rustup, and see that ~/.cargo/bin comes first in PATH"
    fi
fi
command -v cc > /dev/null 2>&1 || lacks "a C compiler (cc) is missing" build-essential gcc

if [ "$what" != server ]; then
    command -v c++ > /dev/null 2>&1 || lacks "a C++ compiler (c++) is missing" build-essential gcc-c++
    command -v bash > /dev/null 2>&1 || lacks "bash is missing" bash
    if ! command -v "$python" > /dev/null 2>&1; then
        if [ "$python" = python3 ]; then
            lacks "$python is missing; Python $python_min or newer is needed" "python3 python3-venv" python3
        else
            lacks "$python is missing: leave PYTHON out, or name a Python $python_min or newer that is there"
        fi
    else
        found="$("$python" -c 'import platform; print(platform.python_version())' 2> /dev/null)"
        if [ -z "$found" ]; then
            lacks "$python does not run: name another with PYTHON=python3.11, say"
        elif ! at_least "$python_min" "$found"; then
            lacks "$python is Python $found; $python_min or newer is needed: name another with PYTHON=python3.11, say"
        elif ! "$python" -c 'import ensurepip, venv' 2> /dev/null; then
            # Debian's package is named by the version, unless it is the system's own Python.
            version="$(echo "$found" | cut -d . -f 1,2)"
            package=python3-venv
            [ "$python" = python3 ] || package="python$version-venv"
            lacks "$python cannot make virtual environments (its module ensurepip is missing)" "$package" python3-pip
        fi
    fi
fi
if [ "$what" = trainer ] && [ -z "${LIBTORCH:-}" ]; then
    instead="set LIBTORCH to a libtorch of your own, or leave the trainer out with TRAINER=0"
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64 | Linux-aarch64) ;;
        *) lacks "libtorch is fetched for Linux on x86_64 and aarch64, and this is $(uname -s) on $(uname -m): $instead" ;;
    esac
    glibc="$(getconf GNU_LIBC_VERSION 2> /dev/null | cut -d ' ' -f 2)"
    if [ -z "$glibc" ]; then
        lacks "libtorch needs glibc $glibc_min or newer, and this system has another C library: $instead"
    elif ! at_least "$glibc_min" "$glibc"; then
        lacks "libtorch needs glibc $glibc_min or newer, and this system has $glibc: $instead"
    fi
fi

[ -z "$problems" ] && exit 0
echo "This machine lacks what is needed to build here:$problems" >&2
if [ -n "$packages" ]; then
    sudo=""
    [ "$(id -u 2> /dev/null)" = 0 ] || sudo="sudo "
    echo >&2
    if command -v apt-get > /dev/null 2>&1; then
        echo "Install it with: ${sudo}apt-get update && ${sudo}apt-get install$packages" >&2
    elif command -v dnf > /dev/null 2>&1; then
        echo "Install it with: ${sudo}dnf install$packages" >&2
    else
        echo "Packages (by their names on Fedora):$packages" >&2
    fi
fi
exit 1
