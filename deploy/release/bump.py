#!/usr/bin/env python3
"""Sets the version of everything that is released.

    python3 deploy/release/bump.py 0.2.0

Programs derive it from two files: the workspace's Cargo.toml (pba, the wheel of pba-server, the metrics, each stream, the
tarball) and pba_client/__init__.py (the wheel of pba-client). CHANGELOG.md has it in the heading of its newest section, and
what deploys the images in their tags. Cargo.lock follows. `cargo test --test releases` and deploy/tests compare them.
"""

import argparse
import datetime
import os
import pathlib
import re
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Where it is written: what is before it, the version, what is after it.
PLACES = [
    ("Cargo.toml", r'(\[workspace\.package\]\nversion = ")([^"]+)(")'),
    ("client/python/src/pba_client/__init__.py", r'(?m)(^__version__ = ")([^"]+)(")'),
    ("deploy/README.md", r"(localhost/pba:)(\S+)( token new)"),
    ("deploy/compose/compose.yaml", r"(image: localhost/pba:)(\S+)()"),
    ("deploy/compose/compose.yaml", r"(\bVERSION: )(\S+)()"),
    ("deploy/helm/pba/Chart.yaml", r"(?m)(^version: )(\S+)()"),
    ("deploy/helm/pba/Chart.yaml", r"(?m)(^appVersion: )(\S+)()"),
    ("deploy/kubernetes/base/kustomization.yaml", r"(newTag: )(\S+)()"),
    ("deploy/kubernetes/components/gpu/kustomization.yaml", r"(newTag: )(\S+)()"),
]
# Python and cargo spell versions of other shapes in two ways.
VERSION = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
UNRELEASED = ", not released"


def bump(version, date):
    changed = {}
    for path, pattern in PLACES:
        text = changed.get(path) or (REPOSITORY / path).read_text()
        found = re.findall(pattern, text)
        if len(found) != 1:
            sys.exit(f"{path} has {len(found)} versions; expected one, as of {pattern}")
        changed[path] = re.sub(pattern, rf"\g<1>{version}\g<3>", text)
    path = "CHANGELOG.md"
    text = (REPOSITORY / path).read_text()
    newest = re.search(r"(?m)^## (\S+?)(, .*)?$", text)
    if newest is None:
        sys.exit(f"{path} has no section, as `## {version}{UNRELEASED}`")
    heading = f"## {version}, {date}" if date else f"## {version}{UNRELEASED}"
    if newest.group(2) == UNRELEASED:
        changed[path] = text[: newest.start()] + heading + text[newest.end() :]
    else:
        changed[path] = text[: newest.start()] + heading + "\n\n" + text[newest.start() :]
    for path, text in changed.items():
        (REPOSITORY / path).write_text(text)
    # The lock file names our crates with their versions; nothing else of it changes.
    subprocess.run([os.environ.get("CARGO", "cargo"), "update", "--workspace", "--offline", "--quiet"], cwd=REPOSITORY, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="three numbers, as 0.2.0")
    parser.add_argument("--date", type=datetime.date.fromisoformat,
                        help="of the release, as 2026-12-01; without it, the newest section of CHANGELOG.md is not released")
    arguments = parser.parse_args()
    if not re.fullmatch(VERSION, arguments.version):
        parser.error(f"{arguments.version!r} is not a version; expected three numbers, as 0.2.0")
    bump(arguments.version, arguments.date)


if __name__ == "__main__":
    main()
