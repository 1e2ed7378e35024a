"""The state of a dataset's files, on the standard library alone: a keeper runs it too."""

from __future__ import annotations

import os
from typing import Callable, List, Optional, Set, Tuple

# How the names of the files end that a server reads of a folder, or may.
_OF_TABLES = (".parquet", ".arrow", ".bin", ".txt")
_OF_IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SUFFIXES = _OF_TABLES + _OF_IMAGES
# How many files of a folder are looked at, to tell one state of it from another, and how many entries are listed. Of a
# larger folder, only the names of the other files are known, and when its folders have changed.
FILES_MAX = 100_000
ENTRIES_MAX = 4_000_000


def state_of(data: str) -> Tuple[str, str]:
    """What tells one state of a dataset's files from another: as the server does, which packs a changed one again; and
    with the numbers of devices and files, which differ after a restart on some file systems."""
    # Here, as a keeper rarely needs it.
    import hashlib

    ours, exact = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)

    def add(path: str, found: Optional[os.stat_result] = None) -> None:
        name = os.fsencode(path) + b"\0"
        ours.update(name)
        exact.update(name)
        if found is not None:
            ours.update(b"%d %d %d\0" % (found.st_size, found.st_mtime_ns, found.st_ctime_ns))
            exact.update(b"%d %d\0" % (found.st_dev, found.st_ino))

    try:
        if os.path.isdir(data):
            _walk(data, add)
        elif data:
            add(data, os.stat(data))
    except OSError:
        pass  # whatever it is, the server says so
    exact.update(ours.digest())
    return ours.hexdigest(), exact.hexdigest()


def _walk(root: str, add: Callable[..., None]) -> None:
    """Tells of all below a folder that a server may read."""
    waiting = [root]
    changes: List[str] = []
    # A link may lead to a folder above it.
    known: Set[Tuple[int, int]] = set()
    files = entries = 0
    while waiting and entries < ENTRIES_MAX:
        folder = waiting.pop()
        try:
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in known:
                continue
            known.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as listed:
                inside = sorted(listed, key=lambda entry: os.fsencode(entry.name))
        except OSError:
            continue
        changes.append(f"{found.st_mtime_ns} {found.st_ctime_ns}")
        entries += len(inside)
        for entry in inside:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    # A class may be empty.
                    add(entry.path)
                    waiting.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    files += 1
                    add(entry.path, os.stat(entry.path) if files <= FILES_MAX else None)
            except OSError:
                add(entry.path)
    if files > FILES_MAX:
        for change in changes:
            add(change)
