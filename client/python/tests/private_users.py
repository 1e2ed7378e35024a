"""Processes that use a private server, and what is seen of it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Tuple

from conftest import Home, is_alive

from pba_client import _keeper

# Of 60 images, 4 batches.
STREAM = {"schedule": "cifar10-pba", "epochs": 200, "batch_size": 16}
SECONDS = 60


def digest(epoch) -> str:  # type: ignore[no-untyped-def]
    """Of all that an epoch holds."""
    whole = hashlib.sha256()
    for batch in epoch:
        for column in (batch.image, batch.label, batch.index):
            whole.update(column.tobytes())
    return whole.hexdigest()


class User:
    """Another process, which uses a private server and then waits. What it has to say, it prints.

    Its names: ``loader`` of the pictures, ``digest`` of an epoch's number, and ``say``.
    """

    BEGIN = """
import hashlib, os, signal, sys, threading, time
from pba_client import Client, Loader
def say(*words):
    print(*words, flush=True)
def digest(number):
    whole = hashlib.sha256()
    for batch in loader.epoch(number):
        for column in (batch.image, batch.label, batch.index):
            whole.update(column.tobytes())
    return whole.hexdigest()
loader = Loader(sys.argv[1], schedule="cifar10-pba", epochs=200, batch_size=16)
"""

    def __init__(self, pictures: Path, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.BEGIN + code, str(pictures)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.stderr.read()
        return line

    def go_on(self) -> None:
        """Ends its wait for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Waits for its end, and returns its errors."""
        return self.process.communicate(timeout=SECONDS)[1]

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def only(home: Home) -> Tuple[Path, int, int]:
    """The only private server that there is: its folder, its keeper and itself."""
    (folder,) = home.folders()
    ids = [int((folder / name).read_text()) for name in (_keeper.KEEPER_PID, _keeper.PBA_PID)]
    assert all(map(is_alive, ids))
    return folder, ids[0], ids[1]


def lines(folder: Path, text: str) -> int:
    """How often a text is in the log."""
    return (folder / _keeper.LOG).read_text().count(text)
