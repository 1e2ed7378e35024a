#!/usr/bin/env bash
# Asks cargo-deny whether what is linked may be: deny.toml says what is allowed. $CARGO_DENY names the program.
#
# Known vulnerabilities come from a database that is fetched. Where it cannot be, that check is left out, and says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
deny="${CARGO_DENY:-target/tools/bin/cargo-deny}"
"$deny" --log-level error check bans licenses sources
if fetched="$("$deny" --log-level error fetch db 2>&1)"; then
    "$deny" --log-level error check advisories
else
    printf 'LEFT OUT: known vulnerabilities (cargo deny check advisories), as their database cannot be fetched:\n%s\n' "$fetched" >&2
fi
