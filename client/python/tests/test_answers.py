"""Answers that no well server gives, from a server made of a few lines."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import threading
import urllib.request
from typing import Iterator, List, Tuple
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pytest
import xxhash
from conftest import Server, close_ends_a_wait

from pba_client import ChangedError, Client, CutError, Loader, RefusedError, StreamError, UnreachableError
from pba_client._request import EpochRequest


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
                    peer.sendall(of_the_request(request.decode(), answer))
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


def of_the_request(request: str, answer: bytes) -> bytes:
    """An answer that holds a stream also says which request it answers, and with which schema."""
    if b"PBA-Request" in answer or not request:
        return answer
    target = urlsplit(request.split(" ")[1])
    found = re.fullmatch("/v1/datasets/(.*)/epochs/(.*)/batches", target.path)
    status, _, rest = answer.partition(b"\r\n")
    if found is None or not status.endswith(b" 200 OK"):
        return answer
    parts = [*found.groups(), *(part for pair in parse_qsl(target.query) for part in pair)]
    asked = xxhash.xxh3_64_intdigest("".join(f"{len(part)}:{part}" for part in parts).encode())
    head, _ = next(messages(rest.partition(b"\r\n\r\n")[2]), (b"", b""))
    return status + b"\r\n" + answers(asked, head).encode() + rest


def answers(asked: int, schema: bytes) -> str:
    """Headers of an answer to a request."""
    return f"PBA-Request: {asked:016x}\r\nPBA-Schema: {checksum_of(schema, b'', asked, 0):016x}\r\n"


def answer(body: bytes, status: str = "200 OK", kind: str = "application/vnd.apache.arrow.stream", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def stream(count: int, announced: int, first: int = 0, **changed: str) -> bytes:
    """A stream of one-image batches, with metadata of its own; ``first`` is the number of the first."""
    metadata = {
        "pba.checksum": UNSET, "pba.recipe": "r",
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
        for number in range(first, first + count):
            storage = pa.FixedSizeListArray.from_arrays(pa.array([number, 1, 2], pa.uint8()), 3)
            image = pa.ExtensionArray.from_storage(tensor, storage)
            columns = [image, pa.array([0], pa.int64()), pa.array([number], pa.uint64())]
            writer.write_batch(pa.record_batch(columns, schema=schema), custom_metadata={"pba.checksum": UNSET})
    return sealed(sink.getvalue())


UNSET = "xxh3:0000000000000000"


CHECKSUM = re.compile(rb"xxh3:([0-9a-f]{16})")


def sealed(stream: bytes) -> bytes:
    """The same with the checksum of each message."""
    stream = CHECKSUM.sub(UNSET.encode(), stream)
    out, before, number = b"", 0, 0
    for head, body in messages(stream):
        checksum = checksum_of(head, body, before, number)
        out += head.replace(UNSET.encode(), b"xxh3:%016x" % checksum, 1) + body
        before, number = before or checksum, number + 1 if before else 0
    return out + stream[len(out) :]


def messages(stream: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """Heads and bodies of the messages of a stream, as far as they can be read."""
    place = 0
    while place + 8 < len(stream):
        _, length = struct.unpack_from("<Ii", stream, place)
        try:
            message = pa.ipc.read_message(stream[place:])
        except (pa.ArrowException, OSError, EOFError):
            return
        head = stream[place : place + 8 + length]
        body = b"" if message.body is None else message.body.to_pybytes()
        yield head, body
        place += len(head) + len(body)


def checksum_of(head: bytes, body: bytes, before: int, number: int) -> int:
    """The checksum of a message, as ``client/wire/src/checksum.rs`` tells."""
    return xxhash.xxh3_64_intdigest(body, xxhash.xxh3_64_intdigest(CHECKSUM.sub(UNSET.encode(), head), before) ^ number)


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
    request = "GET /v1/datasets/d/epochs/0/batches?batch_size=128&drop_last=false&seed=0&split=train HTTP/1.1"
    head, _, body = of_the_request(request, answer(stream(3, 3))).partition(b"\r\n\r\n")
    head = re.sub(b"Content-Length: [0-9]+.*", b"TRANSFER-ENCODING: Chunked\r\n\r\n", head, flags=re.DOTALL)
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
    heads = [re.sub(b"xxh3:.{16}", b"", body[place : place + head_bytes]) for place in (first, third)]
    assert heads[0] == heads[1]
    # A head that is longer by eight bytes of padding says the same, and is another one.
    longer = struct.pack("<Ii", 0xFFFFFFFF, head_bytes - 8 + 8) + body[third + 8 : third + head_bytes] + bytes(8)
    body = sealed(body[:third] + longer + body[third + head_bytes :])
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
    with Script(*asked, cut, *asked, answer(stream(2, 2, first=1))) as script:
        epoch = Client(script.url, retries=1, prefetch=0).epoch("d", 0)
        assert len(list(epoch)) == 3 and epoch.resumes == 1
    assert pauses == [1, 3, 60, 0, 1, 3, 60]
    assert {record.getMessage() for record in caplog.records} == {"waiting: dataset 'd' is still being imported"}
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once in some seconds, and seen"


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
    with Script(answer(stream(2, 3)), answer(stream(1, 1, first=2))) as script:
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
        body = answer(sealed(sink.getvalue()))
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


def test_every_flipped_bit_of_a_stream_is_noticed() -> None:
    """Whatever byte of a message is damaged: the batches are right, or there is an error."""
    right = stream(3, 3)
    end = len(right) - 8
    for place in range(0, end):
        damaged = bytearray(right)
        damaged[place] ^= 1 << place % 8
        with Script(answer(bytes(damaged)), answer(right)) as script:
            epoch = Client(script.url, retries=0, stall_seconds=2)
            with pytest.raises((StreamError, CutError)):
                list(epoch.epoch("d", 0))
                pytest.fail(f"byte {place} was damaged, and nobody noticed")


def test_a_message_that_belongs_elsewhere_is_noticed(server: Server) -> None:
    """Whole messages, each as the server sent it: of another shard at the same place, twice, or exchanged."""

    def whole(shard: int) -> Tuple[bytes, List[bytes], int]:
        target = EpochRequest("shapes", 3, split="test", schedule="cifar10-pba", shard=(shard, 2)).target(0)
        with urllib.request.urlopen(server.url + target) as sent:
            stream, asked = sent.read(), int(sent.headers["pba-request"], 16)
        pieces = [head + body for head, body in messages(stream)]
        return stream[sum(map(len, pieces)) :], pieces, asked

    (end, right, asked), (_, other, _) = whole(0), whole(1)
    assert right[0] != other[0]

    def read(wrong: List[bytes], **options: bool) -> Tuple[bytes, int]:
        first = answer(b"".join(wrong) + end, more=answers(asked, right[0]))
        with Script(first) as script:
            client = Client([script.url, server.url], **options)
            request = EpochRequest("shapes", 3, split="test", schedule="cifar10-pba", shard=(0, 2))
            with client._open(request) as epoch:
                return b"".join(batch.image.tobytes() for batch in epoch), epoch.resumes

    expected, _ = read(right)
    cases = [other, [other[0], *right[1:]], [right[0], right[2], right[1], *right[3:]]]
    for at in (1, 2, 3, len(right) - 1):
        cases.append([*right[:at], other[at], *right[at + 1 :]])
        if at > 1:
            cases.append([*right[:at], right[at - 1], *right[at + 1 :]])
    for number, wrong in enumerate(cases):
        assert read(wrong) == (expected, 1 if number > 1 else 0), f"case {number}"
        # That the checksum is what notices. A schema by itself changes no pixel.
        if number != 1:
            try:
                assert read(wrong, checksums=False) != (expected, 0), f"case {number}"
            except StreamError:
                pass


def test_a_damaged_batch_is_fetched_again() -> None:
    right, rest = stream(3, 3), stream(3, 3)
    # The value 1 of the last image.
    place = right.rindex(bytes([2, 1, 2]))
    damaged = right[:place] + bytes([3]) + right[place + 1 :]
    rest = stream(1, 1, first=2)
    with Script(answer(damaged), answer(rest)) as script:
        epoch = Client(script.url).epoch("d", 0)
        assert [batch.image[0, 0, 0, 0] for batch in epoch] == [0, 1, 2]
        assert epoch.resumes == 1
    with Script(answer(damaged)) as script:
        epoch = Client(script.url, checksums=False).epoch("d", 0)
        assert [batch.image[0, 0, 0, 0] for batch in epoch] == [0, 1, 3]


def test_a_server_without_checksums_is_refused_unless_it_is_trusted() -> None:
    body = answer(stream(2, 2).replace(b"xxh3:", b"none:"))
    with Script(body) as script, pytest.raises(StreamError, match="has no checksum; the server is older"):
        Client(script.url, retries=0).epoch("d", 0)
    with Script(body) as script:
        assert len(list(Client(script.url, checksums=False).epoch("d", 0))) == 2


@pytest.mark.parametrize("number", [0, 1])
def test_more_rows_than_data_are_refused(number: int) -> None:
    """pyarrow believes lengths; whoever looks at such rows reads past the end."""
    rows = struct.pack("<q", 1)
    for many in (2, 524_288, 2**40, -1):
        body = stream(2, 2)
        at = [place for place in range(len(body)) if body.startswith(b"\xff\xff\xff\xff", place)][1 + number]
        head = body[at : at + 8 + struct.unpack_from("<i", body, at + 4)[0]]
        assert rows in head
        lies = body[:at] + head.replace(rows, struct.pack("<q", many)) + body[at + len(head) :]
        for damaged in (sealed(lies), lies):
            with Script(answer(damaged)) as script:
                with pytest.raises((StreamError, CutError)):
                    list(Client(script.url, retries=0, checksums=damaged == sealed(lies)).epoch("d", 0))


def test_nobody_goes_on_with_another_recipe() -> None:
    begun, rest = stream(3, 3), stream(2, 2, recipe="another", first=1)
    at = [place for place in range(len(begun)) if begun.startswith(b"\xff\xff\xff\xff", place)]
    cut = len(begun) - at[2] - 10
    with Script(answer(begun)[:-cut], answer(rest)) as script:
        epoch = Client(script.url).epoch("d", 0)
        with pytest.raises(ChangedError, match=r"pba\.recipe is 'another', and should be 'r': something else"):
            list(epoch)


def test_the_next_epoch_is_by_the_same_recipe() -> None:
    with Script(answer(stream(2, 2)), answer(stream(2, 2, recipe="another", epoch="1"))) as script:
        client = Client(script.url)
        assert len(list(client.epoch("d", 0))) == 2
        with pytest.raises(ChangedError, match=r"pba\.recipe is 'another', and should be 'r'"):
            client.epoch("d", 1)
    # Another request may have another recipe.
    with Script(answer(stream(2, 2)), answer(stream(2, 2, recipe="another"))) as script:
        client = Client(script.url)
        assert len(list(client.epoch("d", 0))) == 2
        assert len(list(client.epoch("d", 0, split="test"))) == 2


def test_a_server_that_answers_another_request_is_left() -> None:
    """As where a bit of the request was flipped on its way."""
    other = of_the_request("GET /v1/datasets/d/epochs/0/batches?shard=1/2 HTTP/1.1", answer(stream(2, 2)))
    with Script(other) as script, pytest.raises(StreamError, match="answers another request than was sent"):
        Client(script.url, retries=0).epoch("d", 0)
    with Script(other, answer(stream(2, 2))) as script:
        assert len(list(Client(script.url, retries=1).epoch("d", 0))) == 2


def test_a_replica_whose_file_is_damaged_is_passed_over() -> None:
    """It mends its own, or another one's is whole; all other refusals of a dataset are final."""
    problem = {"title": "t", "status": 422, "detail": "damaged: train.arrow", "type": "urn:pba:problem:damaged"}
    damaged = answer(json.dumps(problem).encode(), "422 Unprocessable Entity", PROBLEM, "Retry-After: 0\r\n")
    with Script(damaged, answer(stream(2, 2))) as script:
        assert len(list(Client(script.url).epoch("d", 0))) == 2
    with Script(damaged, damaged) as script, pytest.raises(RefusedError, match="damaged: train.arrow"):
        Client(script.url, retries=1).epoch("d", 0)
    broken = json.dumps({**problem, "type": "urn:pba:problem:broken-dataset"}).encode()
    with Script(answer(broken, "422 Unprocessable Entity", PROBLEM)) as script, pytest.raises(RefusedError):
        Client(script.url).epoch("d", 0)


def refusal(status: int, detail: str) -> bytes:
    return answer(json.dumps({"title": "t", "status": status, "detail": detail}).encode(), f"{status} No", PROBLEM)


def test_a_replica_that_has_not_what_others_have_is_passed_over() -> None:
    """At the beginning, after a cut, and for what is no stream."""
    begun, rest = stream(4, 4), stream(3, 3, first=1)
    at = [place for place in range(len(begun)) if begun.startswith(b"\xff\xff\xff\xff", place)]
    cut = answer(begun)[: len(answer(begun)) - len(begun) + at[2] + 10]
    for status in (404, 422, 507, 500):
        with Script(refusal(status, "not here"), refusal(status, "not here")) as without:
            with Script(cut, answer(rest)) as script:
                epoch = Client([without.url, script.url]).epoch("d", 0)
                assert [batch.index[0] for batch in epoch] == [0, 1, 2, 3]
            described = answer(b'{"name": "d"}', kind="application/json")
        with Script(refusal(status, "not here")) as without, Script(described) as script:
            assert Client([without.url, script.url]).dataset("d") == {"name": "d"}


def test_what_no_replica_has_is_refused_by_name() -> None:
    for ask in (lambda client: client.epoch("d", 0), lambda client: client.dataset("d")):
        with Script(refusal(404, "no dataset")) as one, Script(refusal(422, "it is broken")) as other:
            with pytest.raises(RefusedError) as refused:
                ask(Client([one.url, other.url]))
        assert refused.value.status == 404
        assert refused.value.detail == f"{one.url}: no dataset; {other.url}: it is broken"
    # That the request is wrong, all would say.
    with Script(refusal(400, "no such batch size")) as one, Script() as other:
        with pytest.raises(RefusedError, match="^no such batch size"):
            Client([one.url, other.url]).epoch("d", 0)
        assert other.requests == []


def test_a_loader_whose_first_replica_has_a_broken_dataset(server: Server) -> None:
    """Its description has no samples; those of the others count, and nobody is blamed for it."""
    failed = answer(b'{"name": "shapes", "state": "failed", "splits": {}}', kind="application/json")
    broken = refusal(422, "dataset 'shapes' could not be read")
    with Script(failed, *[broken] * 8) as script:
        loader = Loader([script.url, server.url], "shapes", split="test", batch_size=500)
        assert len(loader) == 4
        assert len(list(loader.epoch(0))) == 4


def test_a_loader_is_as_patient_as_an_epoch(server: Server) -> None:
    """A server whose first answers are cut."""
    with Script(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") as script:
        described = Client(server.url)._get("/v1/datasets/shapes")
        script._answers.append(answer(json.dumps(described).encode(), kind="application/json"))
        with pytest.raises((RefusedError, StreamError, UnreachableError, CutError)):
            Loader(script.url, "shapes", split="test", retries=3, stall_seconds=1)
        assert len(script.requests) >= 3
