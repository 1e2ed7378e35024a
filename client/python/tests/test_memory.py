"""Batches through memory that the server shares: the same as ever, whatever happens to either side."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np
import pyarrow as pa
import pytest
from conftest import Server, client_threads, taken_by_threads, wait_for

from pba_client import Client, CutError, RefusedError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sealed memory is Linux's")

# 79 batches, many more than there are slots.
REQUEST = {"schedule": "cifar10-pba", "batch_size": 128}
TARGET = "/v1/datasets/shapes/epochs/199/batches?schedule=cifar10-pba"
RECORD = struct.Struct("<IIQQ")
READY = b"\xff" * 4


class Local:
    """A server with a Unix socket."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.path = folder / "pba.sock"
        self.url = f"unix:{self.path}"
        self.options = options
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.server = Server(self.folder / "data", "--socket", str(self.path), *self.options)


@pytest.fixture(scope="module")
def shared_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    local = Local(tmp_path_factory.mktemp("local"))
    yield local
    local.server.stop()


@pytest.fixture
def local(shared_local: Local) -> Iterator[Local]:
    yield shared_local
    gc.collect()
    shared_local.server.wait_idle()


@pytest.fixture
def start_local(tmp_path: Path) -> Iterator:  # type: ignore[type-arg]
    started: List[Local] = []

    def start(*options: str) -> Local:
        started.append(Local(tmp_path, *options))
        return started[-1]

    yield start
    for local in started:
        local.server.kill()


@pytest.fixture(scope="module")
def whole(shared_local: Local) -> pa.Table:
    """The epoch over TCP."""
    return Client(shared_local.server.url).epoch("shapes", 199, **REQUEST).read_all()


def check(epoch, whole: pa.Table, first: int = 0) -> None:  # type: ignore[no-untyped-def]
    """Batch by batch, without holding any, the rest of an epoch is what it is over TCP."""
    for number, batch in enumerate(epoch, first):
        rows = whole.slice(number * 128, 128)
        assert batch.table.equals(rows), f"batch {number} differs"
    assert epoch.received == 79


def test_all_ways_give_the_same_bytes(local: Local, whole: pa.Table) -> None:
    sizes = []
    for url, shared in ((local.server.url, True), (local.url, False), (local.url, True)):
        for prefetch in (0, 2):
            epoch = Client(url, shared_memory=shared, prefetch=prefetch).epoch("shapes", 199, **REQUEST)
            assert epoch.shares_memory == (url == local.url and shared)
            if epoch.shares_memory:
                assert not client_threads(), "the server is ahead, and no thread is needed"
            check(epoch, whole)
            sizes.append(epoch.bytes)
    assert len(set(sizes)) == 1, sizes


@pytest.mark.parametrize("batch_size", [1, 3, 2000, 65536])
def test_batches_of_every_size(local: Local, batch_size: int) -> None:
    request = {"split": "test", "batch_size": batch_size, "schedule": "cifar10-pba"}
    for shard in ((0, 1), (3, 40)):
        epochs = [Client(url).epoch("shapes", 7, shard=shard, **request) for url in (local.server.url, local.url)]
        assert epochs[1].shares_memory
        assert epochs[0].read_all().equals(epochs[1].read_all())


def test_an_epoch_without_batches(local: Local) -> None:
    with Client(local.url).epoch("shapes", 0, start=79, batch_size=128) as epoch:
        assert epoch.shares_memory and len(epoch) == 0 and list(epoch) == []


def test_batches_look_into_the_memory(local: Local) -> None:
    with Client(local.url).epoch("shapes", 199, **REQUEST) as epoch:
        seen = set()
        for batch in epoch:
            address = batch.image.ctypes.data
            assert address % 64 == 0
            seen.add(address)
            del batch
    # As many places as slots, used again and again.
    assert 1 <= len(seen) <= 9


def test_what_the_loop_writes_is_its_own(local: Local, whole: pa.Table) -> None:
    """Writing is allowed, shows in the batch, and never in a later one at the same place."""
    with Client(local.url).epoch("shapes", 199, **REQUEST) as epoch:
        for number, batch in enumerate(epoch):
            assert batch.table.equals(whole.slice(number * 128, 128)), f"batch {number} differs"
            batch.image[:] = 7
            batch.label[-1] = -5
            assert batch.record_batch.column(1)[-1].as_py() == -5
            assert batch.record_batch.column(0).storage.values[12].as_py() == 7


def test_a_loop_may_hold_every_batch(local: Local, whole: pa.Table) -> None:
    client = Client(local.url)
    epoch = client.epoch("shapes", 199, **REQUEST)
    held = list(epoch)
    # They outlive the epoch and what comes after it.
    del epoch
    check(client.epoch("shapes", 199, **REQUEST), whole)
    assert pa.Table.from_batches([batch.record_batch for batch in held]).equals(whole)
    # Kept and let go of in another order.
    epoch = client.epoch("shapes", 199, **REQUEST)
    kept = []
    for number, batch in enumerate(epoch):
        kept.append((number, batch.image))
        del batch
        if number % 3 == 2:
            del kept[number % len(kept)]
    assert epoch.received == 79
    pixels = np.concatenate([chunk.to_numpy_ndarray() for chunk in whole["image"].chunks])
    for number, image in kept:
        assert np.array_equal(image, pixels[number * 128 : number * 128 + 128])


def test_a_server_that_is_killed_is_continued(start_local, whole: pa.Table) -> None:  # type: ignore[no-untyped-def]
    local = start_local()
    epoch = Client(local.url).epoch("shapes", 199, **REQUEST)
    first = [next(epoch) for _ in range(5)]
    assert epoch.shares_memory
    local.server.kill()
    local.start()
    check(epoch, whole, 5)
    assert epoch.resumes >= 1
    # The memory of a server that is gone is still there.
    assert pa.Table.from_batches([batch.record_batch for batch in first]).equals(whole.slice(0, 5 * 128))


def test_another_replica_continues(local: Local, start_local, whole: pa.Table) -> None:  # type: ignore[no-untyped-def]
    replica = start_local()
    # From memory to a network, and from a network to memory.
    for through_memory in (True, False):
        urls = [replica.url, local.server.url] if through_memory else [replica.server.url, local.url]
        epoch = Client(urls).epoch("shapes", 199, **REQUEST)
        assert epoch.shares_memory == through_memory
        next(epoch)
        replica.server.kill()
        check(epoch, whole, 1)
        assert epoch.resumes >= 1
        replica.start()


def test_a_server_that_stays_away_is_told(start_local) -> None:  # type: ignore[no-untyped-def]
    local = start_local()
    epoch = Client(local.url, retry_seconds=0.5).epoch("shapes", 199, **REQUEST)
    next(epoch)
    local.server.kill()
    with pytest.raises(CutError):
        list(epoch)


CLIENT = """
import sys, time
from pba_client import Client
epoch = Client(sys.argv[1]).epoch("shapes", 199, schedule="cifar10-pba")
batches = [next(epoch) for _ in range(3)]
assert epoch.shares_memory
print("ready", flush=True)
time.sleep(60)
"""


def budgeted(start_local) -> Local:  # type: ignore[no-untyped-def, type-arg]
    """A server that shares memory with one client at a time: 9 slots of 400 KB."""
    return start_local("--shared-memory-bytes-max", "4000000")


def test_a_client_that_is_killed_frees_its_place_and_memory(start_local) -> None:  # type: ignore[no-untyped-def]
    local = budgeted(start_local)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", CLIENT, local.url], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert local.server.metric("pba_streams_active") == 1
            process.kill()
        local.server.wait_idle()


def test_without_memory_the_stream_is_plain(start_local, whole: pa.Table) -> None:  # type: ignore[no-untyped-def]
    local = budgeted(start_local)
    client = Client(local.url)
    first, second = (client.epoch("shapes", 199, **REQUEST) for _ in range(2))
    assert first.shares_memory and not second.shares_memory
    check(second, whole)
    check(first, whole)
    local.server.wait_idle()

    def has_memory() -> bool:
        with client.epoch("shapes", 199, **REQUEST) as epoch:
            next(epoch)
            return epoch.shares_memory

    # What one client needed is the next one's, once no worker writes there any more.
    for _ in range(5):
        wait_for(has_memory, "the memory does not come back")
    # Batches that are larger than all of it.
    with client.epoch("shapes", 199, batch_size=5000) as epoch:
        assert not epoch.shares_memory and len(next(epoch)) == 5000


def test_memory_can_be_switched_off(start_local, whole: pa.Table) -> None:  # type: ignore[no-untyped-def]
    local = start_local("--shared-memory-bytes-max", "0")
    epoch = Client(local.url).epoch("shapes", 199, **REQUEST)
    assert not epoch.shares_memory
    check(epoch, whole)


def test_compressed_streams_are_plain(local: Local, whole: pa.Table) -> None:
    epoch = Client(local.url).epoch("shapes", 199, codec="zstd", **REQUEST)
    assert not epoch.shares_memory
    check(epoch, whole)


def test_wrong_requests_are_refused_as_ever(local: Local) -> None:
    refusals = []
    for url in (local.url, local.server.url):
        with pytest.raises(RefusedError) as refusal:
            Client(url).epoch("shapes", 0, batch_size=0)
        refusals.append((refusal.value.status, refusal.value.detail, refusal.value.parameter))
    assert refusals[0] == refusals[1]


def test_a_slow_client_holds_its_own_slots_and_slows_nobody(start_local, whole: pa.Table) -> None:  # type: ignore[no-untyped-def]
    local = start_local("--threads", "1")
    slow = Client(local.url).epoch("shapes", 199, **REQUEST)
    next(slow)
    images = 'pba_images_augmented_total{dataset="shapes"}'

    def made() -> float:
        from conftest import http_get

        for line in http_get(local.server.url + "/metrics").decode().splitlines():
            if line.startswith(images):
                return float(line.split()[1])
        return 0.0

    # It gets as far as its slots, and no farther.
    wait_for(lambda: made() >= 9 * 128, "the slots are not filled")
    for _ in range(3):
        check(Client(local.url).epoch("shapes", 199, **REQUEST), whole)
    assert made() == (9 * 128 + 3 * 10_000)
    check(slow, whole, 1)


def test_a_client_that_takes_nothing_is_cut(start_local, whole: pa.Table) -> None:  # type: ignore[no-untyped-def]
    local = start_local("--stall-seconds", "1")
    epoch = Client(local.url).epoch("shapes", 199, **REQUEST)
    next(epoch)
    local.server.wait_idle()
    check(epoch, whole, 1)
    assert epoch.resumes == 1


def test_closing_early_frees_the_place(local: Local) -> None:
    for taken in (0, 1, 20):
        epoch = Client(local.url).epoch("shapes", 199, **REQUEST)
        batches = [next(epoch) for _ in range(taken)]
        epoch.close()
        local.server.wait_idle()
        assert all(len(batch.image) == 128 for batch in batches)
    # It is not closed, but it is not held either.
    epoch = Client(local.url).epoch("shapes", 199, **REQUEST)
    next(epoch)
    del epoch
    gc.collect()
    local.server.wait_idle()


def test_a_fork_keeps_what_it_saw(local: Local, whole: pa.Table) -> None:
    epoch = Client(local.url).epoch("shapes", 199, **REQUEST)
    batch = next(epoch)
    expected = whole.slice(0, 128)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(write)
            os.read(read, 1)
            # The parent has gone on, and the server has written the slot again.
            same = batch.table.equals(expected)
            del batch
            # A child that goes on asks for itself.
            same = same and next(epoch).number == 1
            os._exit(0 if same else 1)
        except BaseException:
            os._exit(2)
    os.close(read)
    del batch
    check(epoch, whole, 1)
    os.write(write, b"x")
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_program_that_ends_in_the_middle_ends_well(local: Local) -> None:
    program = CLIENT.replace("time.sleep(60)", "")
    done = subprocess.run([sys.executable, "-W", "error", "-c", program, local.url], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    wait_for(lambda: local.server.metric("pba_streams_active") == 0, "the stream stays")


# The socket itself, with none of the code under test.


def handshake(local: Local, batches: str = "4") -> Tuple[socket.socket, bytes]:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(local.path))
    head = (
        f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: pba-memory/1\r\n"
        f"PBA-Memory-Batches: {batches}\r\n\r\n"
    )
    sock.sendall(head.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(1)
    return sock, answer


def opened(local: Local) -> Tuple[socket.socket, int, tuple]:
    sock, answer = handshake(local)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    sock.sendall(READY)
    data, (descriptor,), _, _ = socket.recv_fds(sock, RECORD.size, 1)
    return sock, descriptor, RECORD.unpack(data)


def test_the_memory_cannot_be_cut_off_or_written(local: Local) -> None:
    sock, descriptor, (kind, batches, length, _) = opened(local)
    with sock:
        assert (kind, batches) == (1, 4)
        assert os.fstat(descriptor).st_size == length
        seals = fcntl.fcntl(descriptor, 1034)
        assert seals & 0b10111 == 0b10111, "shrink, grow, seal and future write"
        for attempt in (
            lambda: os.ftruncate(descriptor, 0),
            lambda: os.ftruncate(descriptor, 2 * length),
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: mmap.mmap(descriptor, length, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        ):
            with pytest.raises(OSError):
                attempt()
        os.close(descriptor)


@pytest.mark.parametrize(
    "nonsense",
    [b"\0\0\0\0" * 2, b"\x63\0\0\0", READY, b"\xff\xff\xff\x7f", os.urandom(1000) + b"\x7f" * 4],
    ids=["twice", "no slot", "ready again", "huge", "noise"],
)
def test_nonsense_ends_its_own_stream_only(local: Local, whole: pa.Table, nonsense: bytes) -> None:
    other = Client(local.url).epoch("shapes", 199, **REQUEST)
    next(other)
    sock, descriptor, _ = opened(local)
    os.close(descriptor)
    with sock:
        assert RECORD.unpack(sock.recv(RECORD.size, socket.MSG_WAITALL))[0] == 2
        sock.sendall(nonsense)
        rest = b""
        try:
            while piece := sock.recv(65536):
                rest += piece
        except ConnectionResetError:
            pass
        kinds = {RECORD.unpack_from(rest, at)[0] for at in range(0, len(rest), RECORD.size)}
        assert kinds <= {2}, "a stream that was cut must not look complete"
    check(other, whole, 1)


def test_nonsense_instead_of_ready(local: Local) -> None:
    for beginning in (b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", READY + b"\0\0\0\0"):
        sock, _ = handshake(local)
        with sock:
            sock.sendall(beginning)
            assert sock.recv(65536) == b"", "the server does not answer what begins so"
        local.server.wait_idle()


def test_a_client_that_leaves_after_the_answer(local: Local) -> None:
    for _ in range(20):
        sock, answer = handshake(local)
        assert answer.startswith(b"HTTP/1.1 101 ")
        sock.close()
    local.server.wait_idle()


def test_numbers_of_batches_are_checked(local: Local) -> None:
    for batches in ("0", "65", "-1", "many", ""):
        sock, answer = handshake(local, batches)
        sock.close()
        assert answer.startswith(b"HTTP/1.1 400 "), (batches, answer)


def test_a_reader_that_never_gives_back_gets_what_it_may_hold(local: Local) -> None:
    sock, descriptor, (_, batches, _, _) = opened(local)
    os.close(descriptor)
    with sock:
        got = b""
        # 4 that it may hold, and 3 that are made meanwhile.
        while len(got) < 7 * RECORD.size:
            got += sock.recv(7 * RECORD.size - len(got))
        slots = [RECORD.unpack_from(got, at)[1] for at in range(0, len(got), RECORD.size)]
        assert sorted(slots) == list(range(7))
        sock.settimeout(0.3)
        with pytest.raises(socket.timeout):
            sock.recv(1)
        # Given back in one piece and in several.
        sock.settimeout(20)
        for piece in (struct.pack("<I", slots[3])[:3], struct.pack("<I", slots[3])[3:]):
            sock.sendall(piece)
        record = RECORD.unpack(sock.recv(RECORD.size, socket.MSG_WAITALL))
        assert record[:2] == (2, slots[3])


def test_over_tcp_nobody_is_answered_so(local: Local) -> None:
    with socket.create_connection(local.server.address) as sock:
        sock.settimeout(20)
        sock.sendall(
            f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: pba-memory/1\r\n"
            "PBA-Memory-Batches: 4\r\n\r\n".encode()
        )
        assert sock.recv(15) == b"HTTP/1.1 200 OK"


def test_a_drain_cuts_it_visibly(start_local) -> None:  # type: ignore[no-untyped-def]
    local = start_local("--drain-seconds", "1")
    epoch = Client(local.url, retry_seconds=0).epoch("shapes", 199, **REQUEST)
    next(epoch)
    os.kill(local.server._process.pid, signal.SIGTERM)
    local.server._process.wait(20)
    with pytest.raises(CutError):
        list(epoch)


def test_threads_share_an_epoch(local: Local) -> None:
    epoch = Client(local.url).epoch("shapes", 0, batch_size=50)
    assert epoch.shares_memory
    taken_by_threads(epoch)


def test_an_answer_cut_in_its_head_is_a_cut(local: Local, tmp_path: Path) -> None:
    """``http.client`` takes the end of a connection for the end of a head, which then promises nothing."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: pba-memory/1\r\n\r\n"
    path = tmp_path / "cutting.sock"
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(path))
        listener.listen()

        def cut() -> None:
            for length in range(len(head)):
                peer, _ = listener.accept()
                with peer:
                    while b"\r\n\r\n" not in peer.recv(65536):
                        pass
                    peer.sendall(head[:length])

        thread = threading.Thread(target=cut)
        thread.start()
        for _ in range(len(head)):
            with Client([f"unix:{path}", local.url]).epoch("shapes", 0, start=78) as epoch:
                assert len(list(epoch)) == 1
        thread.join(60)
    assert not thread.is_alive()
