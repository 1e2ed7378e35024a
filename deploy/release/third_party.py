#!/usr/bin/env python3
"""The notices of what is linked into pba: every crate, its licence, and the texts that it asks to pass on.

    python3 deploy/release/third_party.py > THIRD-PARTY.txt

Texts are the files of the crates as they were published, those of C libraries that they carry with them included, and
of Rust's standard library. A text that several share is printed once. Fails when a
crate names no licence, or has no text and none is known here for its licence.
"""

import collections
import html.parser
import json
import os
import pathlib
import re
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CARGO = os.environ.get("CARGO", "cargo")
PACKAGE = "pba-server"
NAMED = re.compile(r"(?i)^(licen[cs]e|unlicense|copying|copyright|notice)([-_.].*)?$")
# Code that is named like a licence, as of a crate that checks them.
CODE = re.compile(r"\.(rs|py|c|h|json|toml|sh)$")
# Folders of a crate in which nothing is linked.
UNUSED = {"tests", "test", "benches", "examples", "fuzz", "doc", "docs", "target", "ci", "contrib", "programs"}
# Below the crate's own folder: the sources of a C library, and what these carry with them.
DEPTH_MAX = 3
# What stands for a crate that was published without the text of its licence; the first that it allows.
STANDARD = {"MIT": REPOSITORY / "LICENSE-MIT", "Apache-2.0": REPOSITORY / "LICENSE-APACHE"}


def run(*command):
    return subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout


def linked():
    """Names and versions of the crates that are linked, without our own."""
    lines = run(CARGO, "tree", "--locked", "--package", PACKAGE, "--edges", "normal,no-proc-macro", "--prefix", "none",
                "--format", "{p}").splitlines()
    found = set()
    for line in lines:
        name, version, *more = line.split()
        if not any(part.startswith("(/") for part in more):
            found.add((name, version.removeprefix("v")))
    return sorted(found)


def packages():
    """What cargo knows of each package, by name and version."""
    known = json.loads(run(CARGO, "metadata", "--locked", "--format-version", "1"))
    return {(package["name"], package["version"]): package for package in known["packages"]}


def texts_of(folder):
    """Relative paths and texts of the notices in a crate's folder."""
    for place, folders, files in os.walk(folder):
        depth = len(pathlib.Path(place).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if name not in UNUSED and depth < DEPTH_MAX)
        for name in sorted(files):
            if (NAMED.match(name) or name == "README.ijg") and not CODE.search(name):
                path = pathlib.Path(place, name)
                yield str(path.relative_to(folder)), path.read_text(encoding="utf-8", errors="replace")


def standard_of(package):
    """The text of a licence that the crate allows, for one without any of its own."""
    for licence, path in STANDARD.items():
        if re.search(rf"(?<![\w.-]){re.escape(licence)}(?![\w.-])", package["license"] or ""):
            authors = ", ".join(package["authors"]) or "its authors"
            text = path.read_text()
            if licence == "MIT":
                text = re.sub(r"(?m)^Copyright .*$", f"Copyright (c) {authors}", text)
            return f"{licence}, which the crate names and holds no text of", text
    raise SystemExit(f"{package['name']} {package['version']} holds no licence's text, and there is none here for "
                     f"{package['license']!r}: add it to STANDARD in {__file__}")


class Plain(html.parser.HTMLParser):
    """What a page says, without its marks."""

    def __init__(self):
        super().__init__()
        self.said = []

    def handle_starttag(self, tag, attributes):
        if tag in ("p", "h1", "h2", "h3", "h4", "li", "tr", "pre", "summary"):
            self.said.append("\n")

    def handle_data(self, data):
        self.said.append(data)

    def text(self):
        return re.sub(r"\n\s*\n+", "\n\n", "".join(self.said))


def standard_library():
    """The version of Rust's standard library, which is linked as well, and its notices."""
    sysroot = pathlib.Path(run("rustc", "--print", "sysroot").strip())
    release = run("rustc", "--version").split()[1]
    page = sysroot / "share/doc/rust/COPYRIGHT-library.html"
    if not page.is_file():
        raise SystemExit(f"this Rust has no {page}, which holds the notices of its standard library: install it by rustup")
    plain = Plain()
    plain.feed(page.read_text(encoding="utf-8"))
    return release, page.name, plain.text()


def main():
    known = packages()
    lines = ["Third-party notices of pba", "",
             "These are linked into pba, each under the licence beside it. Their notices follow below.", ""]
    users = collections.OrderedDict()

    def add(owner, path, text):
        key = "\n".join(line.rstrip() for line in text.strip().splitlines())
        if key:
            users.setdefault(key, []).append(f"{owner} ({path})")

    for name, version in linked():
        package = known[(name, version)]
        licence = package["license"] or (package["license_file"] and f"its file {package['license_file']}")
        if not licence:
            raise SystemExit(f"{name} {version} names no licence")
        lines.append(f"  {name} {version}: {licence}")
        found = list(texts_of(pathlib.Path(package["manifest_path"]).parent)) or [standard_of(package)]
        for path, text in found:
            add(f"{name} {version}", path, text)
    release, path, text = standard_library()
    lines.append(f"  Rust's standard library {release}: MIT OR Apache-2.0")
    add(f"Rust's standard library {release}", path, text)
    for text, owners in users.items():
        lines += ["", "-" * 100, *owners, "-" * 100, "", text]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
