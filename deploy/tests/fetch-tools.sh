#!/usr/bin/env bash
# Puts the programs that the tests of deploy/ use, and that are not installed, into .tools/deploy, without root: from
# Debian's packages, where apt-get is there and reaches a mirror. Without them the tests that need one are left out, and
# say so; so this never fails.
#
# Some 20 MB for prometheus, and 40 MB for buildah and podman with their libraries. A second run finds the first one's work.
set -uo pipefail

tools="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.tools/deploy"
mkdir -p "$tools/packages"
command -v apt-get > /dev/null && command -v dpkg > /dev/null || {
    echo "no apt-get here: install prometheus, buildah and podman to have deploy/ tested with them" >&2
    exit 0
}

# The program that is wanted, the package that has it, and others without which it does not start.
fetch() {
    local program="$1"
    shift
    command -v "$program" > /dev/null && return
    [ -e "$tools/usr/bin/$program" ] && return
    local package
    for package in "$@"; do
        (cd "$tools/packages" && timeout 120 apt-get download -qq "$package" > /dev/null 2>&1) || {
            echo "apt-get download $package failed: tests that need $program are left out" >&2
            return
        }
        dpkg -x "$tools/packages/${package}"_*.deb "$tools" || return
    done
}

fetch promtool prometheus
fetch podman podman libgpgme11 libassuan0 libsubid4 libdevmapper1.02.1
fetch buildah buildah libgpgme11 libassuan0 libsubid4 libdevmapper1.02.1
fetch mmdebstrap mmdebstrap
rm -rf "$tools/packages"
exit 0
