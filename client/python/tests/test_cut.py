"""Streams that break at every point, and servers that come and go."""

from __future__ import annotations

import io
import json
import random
import socket
import struct
import threading
from typing import List, Tuple

import numpy as np
import pyarrow as pa
import pytest
from conftest import CuttingProxy, Server, close_ends_a_wait

from pba_client import ChangedError, Client, CutError, Loader, RefusedError, StreamError, UnreachableError

# 40 images in 6 batches, the last short: small enough to be cut hundreds of times.
REQUEST = {"split": "test", "shard": (0, 50), "batch_size": 7, "schedule": "cifar10-pba"}
QUERY = "split=test&shard=0%2F50&batch_size=7&schedule=cifar10-pba"
BATCHES = 6


def wire(server: Server) -> bytes:
    """The answer as it is on the wire, head and chunk sizes included."""
    with socket.create_connection(server.address) as sock:
        sock.sendall(
            f"GET /v1/datasets/shapes/epochs/9/batches?{QUERY} HTTP/1.1\r\n"
            "Host: test\r\nConnection: close\r\n\r\n".encode()
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


def test_retries_are_bounded_and_can_go_on(server: Server, whole: pa.Table) -> None:
    answer = wire(server)
    half = [at for name, at in seams(answer) if name == "inside an Arrow body"][2]
    with CuttingProxy(server.address, [half, 0, 0, 0]) as proxy:
        epoch = Client(proxy.url, retries=3).epoch("shapes", 9, **REQUEST)
        first = [next(epoch), next(epoch)]
        with pytest.raises(CutError, match="after 2 of 6 batches, and 3 attempts") as cut:
            next(epoch)
        assert (cut.value.received, cut.value.expected, cut.value.attempts) == (2, 6, 3)
        # The proxy cuts no more, and the position was kept.
        rest = list(epoch)
    table = pa.Table.from_batches([batch.record_batch for batch in first + rest])
    assert table.equals(whole)


def test_more_replicas_are_no_less_patience(server: Server, whole: pa.Table) -> None:
    half = len(wire(server)) // 2
    with CuttingProxy(server.address, [half, 0, 0, 0]) as proxy:
        epoch = Client([proxy.url, proxy.url], retries=2).epoch("shapes", 9, **REQUEST)
        assert epoch.read_all().equals(whole)
    with CuttingProxy(server.address, [half, 0, 0, 0, 0]) as proxy:
        epoch = Client([proxy.url, proxy.url], retries=2).epoch("shapes", 9, **REQUEST)
        with pytest.raises(CutError, match="4 attempts"):
            epoch.read_all()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_close_ends_a_wait_for_a_silent_server(server: Server, prefetch: int) -> None:
    answer = wire(server)
    with CuttingProxy(server.address, [len(answer) // 2], hang=True) as proxy:
        close_ends_a_wait(Client(proxy.url, prefetch=prefetch).epoch("shapes", 9, **REQUEST))


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
        epoch = Client(proxy.url, retries=14).epoch("shapes", 4, batch_size=32)
        batches = [next(epoch) for _ in range(3)]
        first.kill()
        second = start_server()
        proxy._target = second.address
        batches += list(epoch)
    assert sorted(np.concatenate([b.index for b in batches]).tolist()) == list(range(10_000))


# Answers that no well server gives, from a server made of a few lines.


class Script:
    """Answers each connection with the next of some byte strings."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self.requests: List[str] = []
        self._thread = threading.Thread(target=self._run, name="script")
        self._thread.start()

    def _run(self) -> None:
        for answer in self._answers:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(10)
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = peer.recv(65536)
                    if not piece:
                        break
                    request += piece
                self.requests.append(request.decode())
                try:
                    peer.sendall(answer)
                except OSError:
                    pass

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        # Closing does not wake accept() everywhere; a connection does.
        try:
            socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])), 0.2).close()
        except OSError:
            pass
        self._thread.join(10)


def answer(body: bytes, status: str = "200 OK", kind: str = "application/vnd.apache.arrow.stream", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def stream(count: int, announced: int, **changed: str) -> bytes:
    """A stream of one-image batches, with metadata of its own."""
    metadata = {
        "pba.version": "0", "pba.dataset": "d", "pba.schedule": "s", "pba.epoch": "0", "pba.seed": "0",
        "pba.batches": str(announced), "pba.rows": str(announced), "pba.mean": "[0,0,0]",
        "pba.std": "[1,1,1]", "pba.classes": "[]",
    }  # fmt: skip
    metadata.update({f"pba.{key}": value for key, value in changed.items()})
    tensor = pa.fixed_shape_tensor(pa.uint8(), [1, 1, 3], dim_names=["H", "W", "C"])
    fields = [pa.field("image", tensor), pa.field("label", pa.int64()), pa.field("index", pa.uint64())]
    schema = pa.schema(fields, metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for number in range(count):
            storage = pa.FixedSizeListArray.from_arrays(pa.array([number, 1, 2], pa.uint8()), 3)
            image = pa.ExtensionArray.from_storage(tensor, storage)
            columns = [image, pa.array([0], pa.int64()), pa.array([number], pa.uint64())]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue()


PROBLEM = "application/problem+json"


def full(retry_after: str = "0") -> bytes:
    body = json.dumps({"title": "full", "status": 429, "detail": "all streams are taken"}).encode()
    return answer(body, "429 Too Many Requests", PROBLEM, f"Retry-After: {retry_after}\r\n")


def test_a_plain_body_will_do() -> None:
    """Proxies may replace the chunks by a length, or by the connection's end."""
    body = stream(3, 3)
    until_end = b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apache.arrow.stream\r\n\r\n" + body
    for whole_answer in (answer(body), until_end):
        with Script(whole_answer) as script:
            assert [batch.index[0] for batch in Client(script.url).epoch("d", 0)] == [0, 1, 2]


def test_a_body_starts_on_a_cache_line_whatever_its_head() -> None:
    """pyarrow's own writer pads heads to 8 bytes only; a server may do so too."""
    with Script(answer(stream(3, 3))) as script:
        for batch in Client(script.url).epoch("d", 0):
            assert batch.image.ctypes.data % 64 == 0


def test_what_tls_answers_is_told_from_other_nonsense() -> None:
    """Fatal alerts, as servers of https:// answer requests in the clear."""
    for version in (b"\3\1", b"\3\3"):
        with Script(*[b"\x15" + version + b"\0\2\2\x0a"] * 2) as script:
            client = Client(script.url, retries=0)
            for call in (client.datasets, lambda: client.epoch("d", 0)):
                with pytest.raises(StreamError, match="; does the server use https://"):
                    call()
    with Script(b"nonsense\r\n\r\n") as script, pytest.raises(StreamError) as failure:
        Client(script.url).datasets()
    assert "https://" not in str(failure.value)


def test_a_busy_server_is_waited_for_beside_one_that_is_away(server: Server) -> None:
    body = answer(b'{"datasets": []}', kind="application/json")
    for turn in (1, -1):
        with Script(full(), body) as script:
            assert Client([script.url, "http://127.0.0.1:1"][::turn]).datasets() == []


def test_a_continuation_brings_the_rows_that_are_left() -> None:
    begun = stream(4, 4)
    for changed in ({"rows": "2"}, {"rows": "20"}, {"rows": "3", "batches": "2"}):
        with Script(answer(begun)[: len(begun) // 2], *[answer(stream(3, 3, **changed))] * 3) as script:
            with pytest.raises(ChangedError, match="pba.(rows|batches)"):
                list(Client(script.url, prefetch=0).epoch("d", 0))
    with Script(answer(stream(0, 0, rows="8"))) as script, pytest.raises(StreamError, match="but no batches"):
        Client(script.url, retries=0).epoch("d", 0)


def test_a_token_that_metadata_repeat_is_hidden() -> None:
    for changed in ({"epoch": "s3cret"}, {"mean": '["s3cret"]'}, {"seed": "s3cret"}):
        with Script(answer(stream(1, 1, **changed))) as script, pytest.raises(StreamError) as failure:
            Client(script.url, token="s3cret", retries=0).epoch("d", 0)
        assert "s3cret" not in str(failure.value) and failure.value.__cause__ is None
    begun = stream(4, 4)
    with Script(answer(begun)[: len(begun) // 2], answer(stream(3, 3, dataset="s3cret"))) as script:
        with pytest.raises(ChangedError) as changed_error:
            list(Client(script.url, token="s3cret", prefetch=0).epoch("d", 0))
        assert "s3cret" not in str(changed_error.value)


def test_what_describes_datasets_otherwise_is_no_server() -> None:
    for document in (b"{}", b'{"splits": []}', b'{"splits": {"train": {"samples": "x"}}}'):
        with Script(answer(document, kind="application/json")) as script:
            with pytest.raises(StreamError, match="does not describe 'd' properly"):
                Loader(script.url, "d")


def test_a_cut_list_is_no_list() -> None:
    """It reads as JSON, but the server announced more."""
    cut = answer(b'{"datasets": []}' + b" " * 100, kind="application/json")[:-100]
    with Script(cut) as script, pytest.raises(StreamError, match="middle of the body"):
        Client(script.url).datasets()


def test_odd_chunks_will_do() -> None:
    """The chunks need not be the messages: here each byte, or 3 or 1000, and an extension."""
    body = stream(3, 3)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.apache.arrow.stream\r\nTRANSFER-ENCODING: Chunked\r\n\r\n"
    for size in (1, 3, 1000, 1 << 20):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        framed = b"".join(b"%X;x=y\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        with Script(head + framed + b"0\r\nTrailer: 1\r\n\r\n") as script:
            assert [batch.index[0] for batch in Client(script.url).epoch("d", 0)] == [0, 1, 2]


def test_batches_may_lie_differently() -> None:
    """Batches with the same head lie alike; one with another head in between is read as it says."""
    body = stream(6, 6)
    at = [place for place in range(len(body)) if body.startswith(b"\xff\xff\xff\xff", place)]
    first, third = at[1], at[3]
    head_bytes = 8 + struct.unpack_from("<i", body, first + 4)[0]
    assert body[first : first + head_bytes] == body[third : third + head_bytes]
    # A head that is longer by eight bytes of padding says the same, and is another one.
    longer = struct.pack("<Ii", 0xFFFFFFFF, head_bytes - 8 + 8) + body[third + 8 : third + head_bytes] + bytes(8)
    body = body[:third] + longer + body[third + head_bytes :]
    with Script(answer(body)) as script:
        batches = list(Client(script.url).epoch("d", 0))
    assert [batch.index[0] for batch in batches] == list(range(6))
    assert [batch.image[0, 0, 0, 0] for batch in batches] == list(range(6))
    assert [batch.record_batch.column(2)[0].as_py() for batch in batches] == list(range(6))


def test_a_full_server_is_tried_again() -> None:
    with Script(full(), full(), answer(stream(2, 2))) as script:
        assert len(list(Client(script.url).epoch("d", 0))) == 2
        assert len(script.requests) == 3


def test_retry_after_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    from pba_client import _http

    pauses: list = []
    monkeypatch.setattr(_http.Canceller, "pause", lambda self, seconds: pauses.append(seconds))
    with Script(full("3"), full("0"), full("9999"), answer(stream(1, 1))) as script:
        assert len(list(Client(script.url).epoch("d", 0))) == 1
    assert pauses[0] == 3 and 0 < pauses[1] < 1 and pauses[2] == 60


def importing(retry_after: str = "0", kind: str = "urn:pba:problem:importing") -> bytes:
    problem = {"type": kind, "title": "t", "status": 503, "detail": "dataset 'd' is still being imported"}
    more = f"Retry-After: {retry_after}\r\n"
    return answer(json.dumps(problem).encode(), "503 Service Unavailable", PROBLEM, more)


def test_an_import_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Before the first batch and after a cut, more often than is retried, and without a busy loop."""
    from pba_client import _http

    pauses: list = []
    monkeypatch.setattr(_http.Canceller, "pause", lambda self, seconds: pauses.append(seconds))
    caplog.set_level("INFO", "pba_client")
    cut = answer(stream(3, 3))[:-400]
    asked = [importing(seconds) for seconds in ("0", "3", "9999")]
    with Script(*asked, cut, *asked, answer(stream(2, 2))) as script:
        epoch = Client(script.url, retries=1, prefetch=0).epoch("d", 0)
        assert len(list(epoch)) == 3 and epoch.resumes == 1
    assert pauses == [1, 3, 60, 0, 1, 3, 60]
    assert {record.getMessage() for record in caplog.records} == {"waiting: dataset 'd' is still being imported"}
    assert len(caplog.records) == 1, "once in some seconds"


def test_only_imports_are_waited_for() -> None:
    foreign = importing(kind="about:blank")
    with Script(foreign, foreign) as script, pytest.raises(RefusedError) as refusal:
        Client(script.url, retries=1).epoch("d", 0)
    assert (refusal.value.status, refusal.value.kind) == (503, "about:blank")


def test_an_import_outlasts_other_replicas() -> None:
    """Rounds with a server that is importing do not count, whatever the other one answers."""
    with Script(*[full()] * 3, answer(stream(1, 1))) as other, Script(*[importing()] * 3) as script:
        assert len(list(Client([other.url, script.url], retries=1).epoch("d", 0))) == 1


@pytest.mark.parametrize("prefetch", [0, 2])
def test_close_ends_a_wait_for_an_import(prefetch: int) -> None:
    batches = answer(stream(4, 4))[:-400]
    with Script(batches, importing("60")) as script:
        close_ends_a_wait(Client(script.url, prefetch=prefetch).epoch("d", 0))


def test_a_server_that_stays_full_refuses() -> None:
    with Script(*[full()] * 3) as script, pytest.raises(RefusedError, match="all streams") as refusal:
        Client(script.url, retries=2).epoch("d", 0)
    assert (refusal.value.status, refusal.value.retry_after) == (429, 0)


def test_a_full_real_server_takes_its_turn(start_server) -> None:  # type: ignore[no-untyped-def]
    server = start_server("--streams-max", "1")
    first = Client(server.url).epoch("shapes", 0, batch_size=8)
    next(first)
    with pytest.raises(RefusedError) as refusal:
        Client(server.url, retries=0).epoch("shapes", 0)
    assert refusal.value.status == 429 and refusal.value.retry_after is not None
    timer = threading.Timer(0.5, first.close)
    timer.start()
    assert len(Client(server.url).epoch("shapes", 0, split="test").read_all()) == 2000
    timer.join()


@pytest.mark.parametrize("key", ["dataset", "schedule"])
def test_other_data_is_not_continued(key: str) -> None:
    cut = answer(stream(3, 3))[:-400]
    with Script(cut, answer(stream(2, 2, **{key: "other"}))) as script:
        epoch = Client(script.url).epoch("d", 0)
        with pytest.raises(ChangedError, match=f"pba.{key} is 'other'") as changed:
            list(epoch)
    assert (changed.value.found, changed.value.key) == ("other", f"pba.{key}")


def test_another_count_is_not_continued() -> None:
    cut = answer(stream(3, 3))[:-400]
    with Script(cut, answer(stream(5, 5))) as script, pytest.raises(ChangedError, match="pba.batches"):
        list(Client(script.url).epoch("d", 0))


def test_an_early_end_is_a_cut() -> None:
    """The end of HTTP and of Arrow are there, but a batch is missing."""
    with Script(answer(stream(2, 3)), answer(stream(1, 1))) as script:
        epoch = Client(script.url).epoch("d", 0)
        assert len(list(epoch)) == 3
        assert epoch.resumes == 1 and "start=2" in script.requests[1]


def test_a_batch_too_many_is_an_error() -> None:
    with Script(answer(stream(4, 3))) as script:
        epoch = Client(script.url).epoch("d", 0)
        with pytest.raises(StreamError, match="more than the 3 batches"):
            list(epoch)


@pytest.mark.parametrize(
    "wrong",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apache.arrow.stream\r\nContent-Length: x\r\n\r\n",
        b"x" * 100_000,
        answer(b"PK\3\4 not arrow at all"),
        answer(b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
        answer(b"\xff\xff\xff\xff\x10\0\0\0" + b"\xff" * 16),
        answer(b"\xff\xff\xff\xff\0\0\0\0"),
        answer(stream(1, 1, batches="many")),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apache.arrow.stream\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
    ],
)
def test_what_is_no_stream_is_an_error(wrong: bytes) -> None:
    with Script(wrong, wrong) as script, pytest.raises((StreamError, UnreachableError)):
        Client(script.url, retries=1).epoch("d", 0)


def test_other_columns_are_not_read_as_the_promised_ones() -> None:
    tensor = pa.fixed_shape_tensor(pa.uint8(), [1, 1, 3], dim_names=["H", "W", "C"])
    right = [pa.field("image", tensor), pa.field("label", pa.int64()), pa.field("index", pa.uint64())]
    metadata = pa.ipc.open_stream(stream(1, 1)).schema.metadata
    flat = pa.field("image", pa.list_(pa.uint8(), 3))
    for wrong in (
        [right[0], pa.field("label", pa.int32()), right[2]],
        [right[0], right[2], right[1]],
        [flat, right[1], right[2]],
        right[:2],
        [],
    ):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, pa.schema(wrong, metadata)):
            pass
        body = answer(sink.getvalue())
        with Script(body, body) as script, pytest.raises(StreamError, match="its columns are"):
            Client(script.url, retries=1).epoch("d", 0)


def test_what_follows_the_last_batch_is_an_error() -> None:
    body = stream(2, 2)
    with Script(answer(body + b"more")) as script:
        epoch = Client(script.url).epoch("d", 0)
        with pytest.raises(StreamError, match="follow Arrow's end"):
            list(epoch)


def test_an_end_without_arrows_end_is_an_error() -> None:
    """HTTP says that nothing was cut; so what is missing was never sent."""
    body = stream(2, 2)[:-8]
    with Script(answer(body)) as script:
        epoch = Client(script.url).epoch("d", 0)
        with pytest.raises(StreamError, match="without Arrow's end"):
            list(epoch)


def test_rows_are_counted() -> None:
    body = answer(stream(2, 2, rows="3"))
    with Script(body, body) as script:
        epoch = Client(script.url, retries=0).epoch("d", 0)
        next(epoch)
        with pytest.raises(CutError, match="2 rows where 3 were announced"):
            next(epoch)


@pytest.mark.parametrize("key", ["epoch", "seed"])
def test_another_epoch_or_seed_is_refused(key: str) -> None:
    with Script(answer(stream(1, 1, **{key: "7"}))) as script:
        with pytest.raises(ChangedError, match=f"pba.{key} is '7'"):
            Client(script.url).epoch("d", 0)


def test_a_description_waits_for_a_server_that_starts() -> None:
    starting = json.dumps({"title": "starting", "status": 503, "detail": "still opening"}).encode()
    starting = answer(starting, "503 Service Unavailable", PROBLEM, "Retry-After: 0\r\n")
    with Script(starting, starting, answer(b'{"datasets": []}', kind="application/json")) as script:
        assert Client(script.url).datasets() == []
        assert len(script.requests) == 3
    with Script(starting, starting) as script, pytest.raises(RefusedError, match="still opening"):
        Client(script.url, retries=1).datasets()


def test_a_foreign_page_is_shown() -> None:
    for page in (answer(b"<h1>hello", kind="text/html"), answer(b"<h1>no", "404 Not Found", "text/html")):
        with Script(page) as script, pytest.raises(RefusedError, match="no|answered"):
            Client(script.url).epoch("d", 0)
    with Script(answer(b"<h1>hello", kind="text/html")) as script, pytest.raises(StreamError):
        Client(script.url).datasets()
