"""Private servers and the processes that their users fork off or spawn."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import List

import pytest
from conftest import Home, is_alive, wait_for
from private_users import SECONDS, STREAM, User, digest, only

from pba_client import Client, Loader, _keeper, _private, _private_join, serve


def fork_and_read(loader: Loader, queue) -> None:  # type: ignore[no-untyped-def]
    queue.put(digest(loader.epoch(3)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forks in a process with threads
def test_workers_use_their_parents_server(home: Home, pictures: Path, method: str) -> None:
    loader = Loader(pictures, **STREAM)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=fork_and_read, args=(loader, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    digests = [queue.get(timeout=SECONDS) for _ in workers]
    for worker in workers:
        worker.join(SECONDS)
    queue.close()
    queue.join_thread()
    assert set(digests) == {digest(loader.epoch(3))}
    only(home)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_path_in_pytorch(home: Home, pictures: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only")
    from torch.utils.data import DataLoader

    from pba_client.torch import EpochDataset

    data = EpochDataset(pictures, **STREAM)
    data.set_epoch(3)
    found = [label.tolist() for _, label in DataLoader(data, batch_size=None, num_workers=2)]
    assert found == [batch.label.tolist() for batch in Loader(pictures, **STREAM).epoch(3)]
    only(home)


def test_what_was_forked_off_keeps_no_server(home: Home, pictures: Path) -> None:
    code = """
child = os.fork()
if child == 0:
    time.sleep(600)
say(child); sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)
"""
    with User(pictures, code) as user:
        child = int(user.line())
        _, keeper, pba = only(home)
        user.go_on()
        user.process.wait(SECONDS)
        try:
            home.wait_until_left(keeper, pba)
            assert is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_what_was_forked_off_can_have_its_own(home: Home, pictures: Path) -> None:
    code = """
if os.fork() == 0:
    loader = Loader(sys.argv[1], schedule="cifar10-pba", epochs=200, batch_size=16)
    say(os.getpid()); sys.stdin.readline(); say(digest(3)); os._exit(0)
time.sleep(600)
"""
    with User(pictures, code) as user:
        child = int(user.line())
        found = only(home)
        user.process.kill()
        user.process.wait()
        with serve(pictures) as server:
            expected = digest(Client(server.url).epoch("pictures", 3, **STREAM))
        assert only(home) == found and is_alive(child)
        user.go_on()
        assert user.line() == expected
    home.wait_until_left(*found[1:])


def test_what_has_the_number_of_a_closed_descriptor_is_left_alone(home: Home, pictures: Path) -> None:
    """A process that becomes a daemon closes all descriptors, and others get their numbers."""
    with serve(pictures) as server, serve() as other:
        client = Client(server.url, retry_seconds=SECONDS)
        assert client.datasets()
        reads, writes = os.pipe()
        os.write(writes, b"its user's")
        numbers = [lifeline.connection.number for lifeline in _private._LIFELINES.values()]
        for number in numbers:
            os.dup2(reads, number)
        try:
            # The keepers have lost their users.
            home.wait_until_left()
            assert client.datasets()
            other.close()
            assert os.read(numbers[0], 100) == b"its user's"
            assert all(stat.S_ISFIFO(os.fstat(number).st_mode) for number in numbers)
        finally:
            for number in (reads, writes, *numbers):
                os.close(number)


def test_what_is_forked_off_during_a_start_keeps_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    lifeline = _private_join._raised(ours.detach())
    reads, writes = os.pipe()
    children: List[int] = []

    def fork() -> float:
        if not children:
            children.append(os.fork())
            if children == [0]:
                os.close(writes)
                theirs.close()
                os.read(reads, 1)
                os._exit(0)
        return 0.0

    monkeypatch.setattr(_private_join, "time", SimpleNamespace(monotonic=fork))
    with theirs:
        try:
            theirs.sendall(_keeper.READY + b"1 2\n")
            assert _private_join._answer(lifeline, SECONDS) == _keeper.READY + b"1 2\n"
            lifeline.close()
            theirs.settimeout(SECONDS)
            assert theirs.recv(1) == b"", "the child keeps it open"
        finally:
            for number in (writes, reads):
                os.close(number)
            os.waitpid(children[0], 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_worker_joins_again(home: Home, pictures: Path) -> None:
    loader = Loader(pictures, **STREAM, retry_seconds=SECONDS)
    expected = digest(loader.epoch(3))
    _, keeper, pba = only(home)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(pba), "the server outlives its keeper")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=fork_and_read, args=(loader, queue))
    worker.start()
    assert queue.get(timeout=SECONDS) == expected
    worker.join(SECONDS)
    queue.close()
    queue.join_thread()
