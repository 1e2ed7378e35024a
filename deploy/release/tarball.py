#!/usr/bin/env python3
"""Packs what is released, with checksums: the same bytes from the same files.

    python3 deploy/release/tarball.py --wheel FILE --target HOST --out FOLDER [OTHER...]

Writes FOLDER/pba-VERSION-HOST.tar.gz, the bill of materials beside it, and SHA256SUMS of these and of the other files
in that folder. The program, the third-party notices and the bill are those of the wheel of pba-server. Names are sorted,
owners are root, and every time is SOURCE_DATE_EPOCH.
"""

import argparse
import gzip
import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# What lies in the repository, and where it is in the tarball.
FILES = {
    "README.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE-APACHE": "LICENSE-APACHE",
    "LICENSE-MIT": "LICENSE-MIT",
    "deploy/pba.toml": "pba.toml",
}
# The same for folders, of which all files go along.
FOLDERS = {"deploy/systemd": "systemd"}
SHELLS = {"bash": "pba", "zsh": "_pba", "fish": "pba.fish"}


def version_of(program):
    """What the program says it is: `pba 0.1.0`, or `pba 0.1.0 (REVISION)`."""
    words = said_by(program, "--version").decode().split()
    if words[:1] != ["pba"] or len(words) < 2:
        sys.exit(f"{program} --version says {' '.join(words)!r}; expected: pba VERSION")
    return words[1]


def said_by(program, *arguments):
    ran = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if ran.returncode:
        sys.exit(f"{program} {' '.join(arguments)}: {ran.stderr.decode().strip()}")
    return ran.stdout


def has(program, command):
    """Whether the program has a command; an older one may lack it."""
    known = subprocess.run([program, command, "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    if not known:
        print(f"left out: what `pba {command}` would write, which this pba does not have", file=sys.stderr)
    return known


def of_wheel(wheel):
    """The program, the notices and the bill of materials in a wheel of pba-server."""
    with zipfile.ZipFile(wheel) as inside:
        found = []
        for end in (".data/scripts/pba", ".dist-info/licenses/THIRD-PARTY.txt", ".dist-info/sboms/pba-server.cyclonedx.json"):
            names = [name for name in inside.namelist() if name.endswith(end)]
            if len(names) != 1:
                sys.exit(f"{wheel} has {len(names)} files that end in {end}; expected one, as deploy/release/wheels.sh builds it")
            found.append(inside.read(names[0]))
    return found


def members(program, notices, bill):
    """Names within the tarball, with bytes and whether they can be run; the program is a path."""
    yield "pba", program.read_bytes(), True
    yield "THIRD-PARTY.txt", notices, False
    yield "pba.cyclonedx.json", bill, False
    for path, name in FILES.items():
        yield name, (REPOSITORY / path).read_bytes(), False
    for folder, name in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.is_file():
                yield f"{name}/{path.relative_to(REPOSITORY / folder)}", path.read_bytes(), False
    if has(program, "completions"):
        for shell, name in SHELLS.items():
            yield f"completions/{name}", said_by(program, "completions", shell), False
    if has(program, "man"):
        with tempfile.TemporaryDirectory() as folder:
            said_by(program, "man", "--out", folder)
            for page in sorted(pathlib.Path(folder).iterdir()):
                yield f"man/man1/{page.name}", page.read_bytes(), False


def tarball(root, files, time):
    """The bytes of a compressed tarball."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        folders = {f"{root}/{parent}" for name, _, _ in files for parent in pathlib.PurePosixPath(name).parents}
        entries = [(folder.removesuffix("/."), None, True) for folder in folders]
        entries += [(f"{root}/{name}", content, runs) for name, content, runs in files]
        for name, content, runs in sorted(entries, key=lambda entry: entry[0]):
            entry = tarfile.TarInfo(name)
            entry.mtime = time
            entry.mode = 0o755 if runs else 0o644
            entry.uname = entry.gname = "root"
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    packed = io.BytesIO()
    # Neither the name of a file nor the time of packing is in the head.
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as stream:
        stream.write(plain.getvalue())
    return packed.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=pathlib.Path, required=True, help="of pba-server, which runs on this machine")
    parser.add_argument("--target", required=True, help="what it is built for, as x86_64-unknown-linux-gnu")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("others", type=pathlib.Path, nargs="*", help="in the folder --out; SHA256SUMS names them too")
    arguments = parser.parse_args()
    time = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not time.isdigit():
        parser.error(f"SOURCE_DATE_EPOCH is {time!r}; expected seconds since 1970, as of the commit: git log -1 --format=%ct")
    for other in arguments.others:
        if other.resolve().parent != arguments.out.resolve():
            parser.error(f"{other} is not in {arguments.out}, where SHA256SUMS is written")
    content, notices, bill = of_wheel(arguments.wheel)
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder, "pba")
        program.write_bytes(content)
        program.chmod(0o755)
        name = f"pba-{version_of(program)}-{arguments.target}"
        released = {
            f"{name}.tar.gz": tarball(name, list(members(program, notices, bill)), int(time)),
            f"{name}.cyclonedx.json": bill,
        }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path, packed in released.items():
        (arguments.out / path).write_bytes(packed)
    released.update((other.name, other.read_bytes()) for other in arguments.others)
    sums = [f"{hashlib.sha256(packed).hexdigest()}  {path}\n" for path, packed in sorted(released.items())]
    (arguments.out / "SHA256SUMS").write_text("".join(sums))
    print("".join(sums), end="")


if __name__ == "__main__":
    main()
