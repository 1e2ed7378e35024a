"""Answers that no well server gives."""

from __future__ import annotations

import io
import json
import re
import struct
import threading

import pyarrow as pa
import pytest
from conftest import close_ends_a_wait
from script import PROBLEM, Script, answer, full, of_the_request, problem, refusal, sealed, stream

from pba_client import ChangedError, Client, CutError, Loader, RefusedError, StreamError, UnreachableError


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
            client = Client(script.url, retry_seconds=0)
            for call in (client.datasets, lambda: client.epoch("d", 0)):
                with pytest.raises(StreamError, match="; does the server use https://"):
                    call()
    with Script(b"nonsense\r\n\r\n") as script, pytest.raises(StreamError) as failure:
        Client(script.url, retry_seconds=0).datasets()
    assert "https://" not in str(failure.value)


def test_what_others_send_is_shown_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Without control characters, which a terminal would obey."""
    odd = "first\n\x1b[31msecond\r\tthird"
    told = json.dumps({"title": "t", "status": 403, "detail": odd}).encode()
    for sent in (b"first\x1b[31m\r\n\r\n", answer(told, "403 No", PROBLEM), refusal(503, odd)):
        with Script(sent, sent, sent) as script:
            with pytest.raises((StreamError, RefusedError)) as failure:
                Client(script.url, retry_seconds=0.05).datasets()
            for text in (str(failure.value), *caplog.messages):
                assert text.isprintable(), text
    assert r"does not speak HTTP/1.1: 'first\x1b[31m'; trying" in caplog.text


def test_a_continuation_brings_the_rows_that_are_left() -> None:
    begun = stream(4, 4)
    for changed in ({"rows": "2"}, {"rows": "20"}, {"rows": "3", "batches": "2"}):
        with Script(answer(begun)[: len(begun) // 2], *[answer(stream(3, 3, **changed))] * 3) as script:
            with pytest.raises(ChangedError, match="pba.(rows|batches)"):
                list(Client(script.url, prefetch=0).epoch("d", 0))
    with Script(answer(stream(0, 0, rows="8"))) as script, pytest.raises(StreamError, match="but no batches"):
        Client(script.url, retry_seconds=0).epoch("d", 0)


def test_a_token_that_metadata_repeat_is_hidden() -> None:
    for changed in ({"epoch": "s3cret"}, {"mean": '["s3cret"]'}, {"seed": "s3cret"}):
        with Script(answer(stream(1, 1, **changed))) as script, pytest.raises(StreamError) as failure:
            Client(script.url, token="s3cret", retry_seconds=0).epoch("d", 0)
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
        Client(script.url, retry_seconds=0).datasets()


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
        epoch = Client(script.url, retry_seconds=1, prefetch=0).epoch("d", 0)
        assert len(list(epoch)) == 3 and epoch.resumes == 1
    assert pauses == [1, 3, 60, 0, 1, 3, 60]
    said = [record for record in caplog.records if record.getMessage() == "waiting: dataset 'd' is still being imported"]
    assert [record.levelname for record in said] == ["WARNING"] * 2, "once for each wait, and seen"
    assert [record.levelname for record in caplog.records if record not in said] == ["INFO"] * 2, "that each is over"


def test_only_imports_are_waited_for() -> None:
    foreign = importing(kind="urn:pba:problem:connections")
    with Script(foreign) as script, pytest.raises(RefusedError) as refusal:
        Client(script.url, retry_seconds=0).epoch("d", 0)
    assert (refusal.value.status, refusal.value.kind) == (503, "urn:pba:problem:connections")


def test_an_import_outlasts_other_replicas() -> None:
    """Rounds with a server that is importing do not count, whatever the other one answers."""
    with Script(*[full()] * 3, answer(stream(1, 1))) as other, Script(*[importing()] * 3) as script:
        assert len(list(Client([other.url, script.url], retry_seconds=0).epoch("d", 0))) == 1


@pytest.mark.parametrize("prefetch", [0, 2])
def test_close_ends_a_wait_for_an_import(prefetch: int) -> None:
    batches = answer(stream(4, 4))[:-400]
    with Script(batches, importing("60")) as script:
        close_ends_a_wait(Client(script.url, prefetch=prefetch).epoch("d", 0))


def test_a_server_that_stays_full_refuses() -> None:
    with Script(*[full()] * 99) as script, pytest.raises(RefusedError, match="all streams") as refusal:
        Client(script.url, retry_seconds=0.2).epoch("d", 0)
    assert len(script.requests) >= 3
    assert (refusal.value.status, refusal.value.retry_after) == (429, 0)


def test_a_full_real_server_takes_its_turn(start_server) -> None:  # type: ignore[no-untyped-def]
    server = start_server("--streams-max", "1")
    first = Client(server.url).epoch("shapes", 0, batch_size=8)
    next(first)
    with pytest.raises(RefusedError) as refusal:
        Client(server.url, retry_seconds=0).epoch("shapes", 0)
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
    with Script(wrong) as script, pytest.raises((StreamError, UnreachableError)):
        Client(script.url, retry_seconds=0).epoch("d", 0)


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
        with Script(body) as script, pytest.raises(StreamError, match="its columns are"):
            Client(script.url, retry_seconds=0).epoch("d", 0)


def test_what_comes_after_the_last_batch_takes_nothing_back() -> None:
    """All batches are there, whatever became of the end on its way."""
    body = stream(2, 2)
    for ending in (body + b"more", body[:-8], body[:-8] + b"\xff\xff\xff\xff\1\0\0\0", body[:-8] + b"\xff" * 8):
        with Script(answer(ending)) as script:
            assert [batch.index[0] for batch in Client(script.url).epoch("d", 0)] == [0, 1]


def test_rows_are_counted() -> None:
    body = answer(stream(2, 2, rows="3"))
    with Script(body, body) as script:
        epoch = Client(script.url, retry_seconds=0).epoch("d", 0)
        next(epoch)
        with pytest.raises(CutError, match="2 rows where 3 were announced"):
            next(epoch)


@pytest.mark.parametrize("key", ["epoch", "seed"])
def test_another_epoch_or_seed_is_refused(key: str) -> None:
    with Script(answer(stream(1, 1, **{key: "7"}))) as script:
        with pytest.raises(ChangedError, match=f"pba.{key} is '7'"):
            Client(script.url).epoch("d", 0)


def test_a_description_waits_for_a_server_that_starts() -> None:
    starting = answer(problem("still opening", 503, "starting").encode(), "503 Service Unavailable", PROBLEM, "Retry-After: 0\r\n")
    with Script(starting, starting, answer(b'{"datasets": []}', kind="application/json")) as script:
        assert Client(script.url).datasets() == []
        assert len(script.requests) == 3
    with Script(*[starting] * 99) as script, pytest.raises(RefusedError, match="still opening"):
        Client(script.url, retry_seconds=0.2).datasets()


def test_a_foreign_page_is_shown() -> None:
    for page in (answer(b"<h1>hello", kind="text/html"), answer(b"<h1>no", "404 Not Found", "text/html")):
        with Script(page) as script, pytest.raises(StreamError, match="not an answer of a PBA server|not an epoch"):
            Client(script.url, retry_seconds=0).epoch("d", 0)
    with Script(answer(b"<h1>hello", kind="text/html")) as script, pytest.raises(StreamError):
        Client(script.url, retry_seconds=0).datasets()


@pytest.mark.parametrize("number", [0, 1])
def test_more_rows_than_data_are_refused(number: int) -> None:
    """pyarrow believes lengths; to look at such rows is to read past the end."""
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
                    list(Client(script.url, retry_seconds=0, checksums=damaged == sealed(lies)).epoch("d", 0))
