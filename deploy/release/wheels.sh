#!/usr/bin/env bash
# Builds both wheels: pba_client, which is pure Python, and pba_server, which holds pba.
#
#   deploy/release/wheels.sh OUT [ARGUMENTS OF MATURIN...]
#
# maturin, pip, and what requirements.txt names are those of $TOOLS/bin. Times in the wheels are SOURCE_DATE_EPOCH.
set -euo pipefail
out="$(mkdir -p "$1" && cd "$1" && pwd)"
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools="$(cd "${TOOLS:-target/tools}" && pwd)"
: "${SOURCE_DATE_EPOCH:?expected seconds since 1970, as of the commit: git log -1 --format=%ct}"

# Both are staged, so that nothing is built from what an earlier build left in the sources.
staged="$(mktemp -d target/wheel-XXXXXX)"
trap 'rm -rf "$staged"' EXIT
mkdir "$staged/client"
cp -r client/python/pyproject.toml client/python/README.md client/python/src LICENSE-APACHE LICENSE-MIT "$staged/client"
find "$staged/client" -name __pycache__ -o -name '*.egg-info' -prune | xargs rm -rf
"$tools/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$out" "$staged/client"

# At the same depth as deploy/wheel, whose pyproject.toml names the crate's manifest by a relative path.
server="$(mktemp -d target/wheel-XXXXXX)"
trap 'rm -rf "$staged" "$server"' EXIT
cp deploy/wheel/pyproject.toml deploy/wheel/README.md LICENSE-APACHE LICENSE-MIT "$server"
"${PYTHON:-python3}" deploy/release/third_party.py > "$server/THIRD-PARTY.txt"
(cd "$server" && "$tools/bin/maturin" build --locked --auditwheel check --out "$out" "$@")
