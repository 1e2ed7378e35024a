"""Streams that break at every point, and servers that come and go."""

from __future__ import annotations

import gc
import io
import random
import socket
import struct
from typing import List, Tuple

import numpy as np
import pyarrow as pa
import pytest
from conftest import CuttingProxy, Server, close_ends_a_wait

from pba_client import Client, CutError

# 40 images in 6 batches, the last short: small enough to be cut hundreds of times.
REQUEST = {"split": "test", "shard": (0, 50), "batch_size": 7, "schedule": "cifar10-pba"}
QUERY = "split=test&shard=0%2F50&batch_size=7&schedule=cifar10-pba"
BATCHES = 6


def wire(server: Server) -> bytes:
    """The answer as it is on the wire, head and chunk sizes included."""
    with socket.create_connection(server.address) as sock:
        sock.sendall(
            f"GET /v1/datasets/shapes/epochs/9/batches?{QUERY} HTTP/1.1\r\n"
            "Host: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while True:
            piece = sock.recv(1 << 20)
            if not piece:
                return answer
            answer += piece


def seams(answer: bytes) -> List[Tuple[str, int]]:
    """Where in the answer the parts of HTTP and Arrow meet: a name, and an offset."""
    at = answer.index(b"\r\n\r\n") + 4
    found = [("end of the HTTP head", at)]
    # The body's bytes with their offsets on the wire, from an independent reading of chunks.
    body, offsets = bytearray(), []
    while True:
        line_end = answer.index(b"\r\n", at)
        size = int(answer[at:line_end], 16)
        found += [("before a chunk", at), ("in front of a chunk's data", line_end + 2)]
        if size == 0:
            found.append(("inside the last chunk", at + 1))
            assert answer[line_end:] == b"\r\n\r\n"
            break
        start = line_end + 2
        body += answer[start : start + size]
        offsets += range(start, start + size)
        at = start + size + 2
        found.append(("after a chunk's data", at - 2))
    at = 0
    while at < len(body):
        metadata_bytes = struct.unpack_from("<i", body, at + 4)[0]
        found.append(("before an Arrow message", offsets[at]))
        found.append(("inside an Arrow prefix", offsets[at] + 5))
        if metadata_bytes == 0:
            assert len(body) == at + 8
            break
        message = pa.ipc.read_message(pa.py_buffer(bytes(body[at:])))
        body_bytes = message.body.size if message.body is not None else 0
        found.append(("inside Arrow metadata", offsets[at + 8 + metadata_bytes // 2]))
        if body_bytes:
            found.append(("before an Arrow body", offsets[at + 8 + metadata_bytes]))
            found.append(("inside an Arrow body", offsets[at + 8 + metadata_bytes + body_bytes // 2]))
            found.append(("before an Arrow body's last byte", offsets[at + 8 + metadata_bytes + body_bytes - 1]))
        at += 8 + metadata_bytes + body_bytes
    return found


@pytest.fixture(scope="module")
def whole(shared_server: Server) -> pa.Table:
    """The epoch uncut, read with none of the code under test."""
    answer = wire(shared_server)
    body = bytearray()
    at = answer.index(b"\r\n\r\n") + 4
    while True:
        line_end = answer.index(b"\r\n", at)
        size = int(answer[at:line_end], 16)
        if size == 0:
            break
        body += answer[line_end + 2 : line_end + 2 + size]
        at = line_end + 2 + size + 2
    table = pa.ipc.open_stream(io.BytesIO(body)).read_all()
    assert table.num_rows == 40
    return table


def check(server: Server, whole: pa.Table, cuts: list, what: str, prefetch: int = 2, **how: bool) -> None:
    """The epoch through a proxy that cuts equals the epoch: same batches, same bytes, in order."""
    with CuttingProxy(server.address, cuts, **how) as proxy:
        client = Client(proxy.url, prefetch=prefetch, stall_seconds=0.5 if how.get("hang") else 120)
        epoch = client.epoch("shapes", 9, **REQUEST)
        got = epoch.read_all()
    assert got.equals(whole), f"cut {what} at {cuts}"
    assert len(set(got["index"].to_pylist())) == 40
    assert len(proxy.requests) == 1 + len(cuts) or len(proxy.requests) == len(cuts)


def test_a_stream_cut_at_every_seam(server: Server, whole: pa.Table) -> None:
    answer = wire(server)
    places = seams(answer)
    names = {name for name, _ in places}
    assert len(names) >= 11, names
    for name, offset in places:
        for cut in (offset - 1, offset, offset + 1):
            if cut < len(answer):
                check(server, whole, [cut], name)


def test_a_stream_cut_anywhere(server: Server, whole: pa.Table) -> None:
    answer = wire(server)
    head = answer.index(b"\r\n\r\n")
    rng = random.Random(2)
    for cut in [*range(0, head, 9), *(rng.randrange(len(answer)) for _ in range(60))]:
        check(server, whole, [cut], "anywhere", prefetch=cut % 3, reset=cut % 2 == 0)


def test_a_stream_cut_again_and_again(server: Server, whole: pa.Table) -> None:
    """Each connection gives one batch and a bit."""
    answer = wire(server)
    one_batch = [at for name, at in seams(answer) if name == "inside an Arrow body"][1]
    check(server, whole, [one_batch] * 5, "again and again")
    # Two in a row that give nothing, between some that do.
    check(server, whole, [one_batch, 0, 30, one_batch, 0, one_batch], "with pauses")


def test_a_silent_server_counts_as_cut(server: Server, whole: pa.Table) -> None:
    answer = wire(server)
    for cut in (10, len(answer) // 2, len(answer) - 3):
        check(server, whole, [cut], "silent", hang=True)


def test_a_cut_after_the_last_batch_asks_for_nothing(server: Server, whole: pa.Table) -> None:
    answer = wire(server)
    with CuttingProxy(server.address, [len(answer) - 14]) as proxy:
        epoch = Client(proxy.url).epoch("shapes", 9, **REQUEST)
        assert epoch.read_all().equals(whole)
        assert len(proxy.requests) == 1 and epoch.resumes == 0


def test_a_striped_stream_continues_its_stripe(server: Server) -> None:
    answer = wire(server)
    first = [at for name, at in seams(answer) if name == "inside an Arrow body"][1]
    request = {**REQUEST, "start": 1, "step": 2}
    expected = Client(server.url).epoch("shapes", 9, **request).read_all()
    with CuttingProxy(server.address, [first]) as proxy:
        epoch = Client(proxy.url).epoch("shapes", 9, **request)
        batches = list(epoch)
        assert epoch.resumes == 1
        assert "start=3" in proxy.requests[1] and "step=2" in proxy.requests[1]
    assert [batch.number for batch in batches] == [1, 3, 5]
    assert pa.Table.from_batches([batch.record_batch for batch in batches]).equals(expected)
    del batches


def test_attempts_are_bounded_and_can_go_on(server: Server, whole: pa.Table) -> None:
    answer = wire(server)
    half = [at for name, at in seams(answer) if name == "inside an Arrow body"][2]
    with CuttingProxy(server.address, [half, *[0] * 99]) as proxy:
        epoch = Client(proxy.url, retry_seconds=0.25).epoch("shapes", 9, **REQUEST)
        first = [next(epoch), next(epoch)]
        with pytest.raises(CutError, match=r"after 2 of 6 batches, and \d+ attempts to continue it within") as cut:
            next(epoch)
        assert (cut.value.received, cut.value.expected) == (2, 6)
        assert cut.value.attempts == len(proxy.requests) - 1 >= 1
        assert cut.value.seconds >= 0.25 and f"{proxy.url} did not answer" in cut.value.reason
        # The proxy cuts no more, and the position was kept.
        proxy._cuts.clear()
        rest = list(epoch)
    table = pa.Table.from_batches([batch.record_batch for batch in first + rest])
    assert table.equals(whole)


def test_more_replicas_are_no_less_patience(server: Server, whole: pa.Table) -> None:
    """Each URL is tried once, also where nothing is tried twice."""
    half = len(wire(server)) // 2
    for cuts, urls, attempts in [([half], 1, 0), ([half, 0], 2, 1), ([half, 0, 0], 3, 2)]:
        with CuttingProxy(server.address, cuts) as proxy:
            epoch = Client([proxy.url] * urls, retry_seconds=0).epoch("shapes", 9, **REQUEST)
            with pytest.raises(CutError) as cut:
                epoch.read_all()
            assert cut.value.attempts == attempts == len(proxy.requests) - 1
        with CuttingProxy(server.address, cuts) as proxy:
            epoch = Client([proxy.url] * (urls + 1), retry_seconds=0).epoch("shapes", 9, **REQUEST)
            assert epoch.read_all().equals(whole)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_close_ends_a_wait_for_a_silent_server(server: Server, prefetch: int) -> None:
    answer = wire(server)
    with CuttingProxy(server.address, [len(answer) // 2], hang=True) as proxy:
        close_ends_a_wait(Client(proxy.url, prefetch=prefetch).epoch("shapes", 9, **REQUEST))


def test_a_cut_keeps_no_batch(server: Server) -> None:
    """The batch that came after it is given back with the last reference, as any other."""
    half = len(wire(server)) // 2
    gc.collect()
    gc.disable()
    try:
        before = pa.total_allocated_bytes()
        with CuttingProxy(server.address, [half, 0]) as proxy:
            epoch = Client(proxy.url, prefetch=0).epoch("shapes", 9, **REQUEST)
            for batch in epoch:
                del batch
            assert epoch.resumes == 2
            assert pa.total_allocated_bytes() <= before
    finally:
        gc.enable()


def test_another_replica_takes_over(start_server) -> None:  # type: ignore[no-untyped-def]
    """Two servers; the first is killed in the middle of the epoch."""
    first, second = start_server(), start_server()
    request = {"schedule": "cifar10-pba", "batch_size": 32}
    expected = Client(second.url).epoch("shapes", 4, **request).read_all()
    epoch = Client([first.url, second.url]).epoch("shapes", 4, **request)
    batches = [next(epoch) for _ in range(5)]
    first.kill()
    batches += list(epoch)
    assert epoch.resumes >= 1
    assert len(batches) == len(epoch) == 313
    got = pa.Table.from_batches([batch.record_batch for batch in batches])
    assert got.equals(expected)
    assert sorted(got["index"].to_pylist()) == list(range(10_000))
    second.wait_idle()


def test_a_dead_replica_is_passed_over(server: Server) -> None:
    client = Client(["http://127.0.0.1:1", server.url])
    assert len(client.epoch("shapes", 0, split="test").read_all()) == 2000
    assert client.datasets()[0]["name"] == "shapes"


def test_a_server_that_restarts(start_server) -> None:  # type: ignore[no-untyped-def]
    """A killed server whose address another one takes while the client still tries."""
    first = start_server()
    with CuttingProxy(first.address, []) as proxy:
        epoch = Client(proxy.url).epoch("shapes", 4, batch_size=32)
        batches = [next(epoch) for _ in range(3)]
        first.kill()
        second = start_server()
        proxy.target = second.address
        batches += list(epoch)
    assert sorted(np.concatenate([b.index for b in batches]).tolist()) == list(range(10_000))
