"""What a batch is, what an epoch holds, and what is refused."""

from __future__ import annotations

import gc
import http.client
import io
import json
import logging
import os
import signal
import sys
import threading
import time
from types import FrameType, SimpleNamespace
from typing import Optional

import numpy as np
import pyarrow as pa
import pytest
from conftest import CuttingProxy, Server, client_threads, http_get, taken_by_threads, wait_for

from pba_client import (
    Batch,
    Client,
    CutError,
    PbaError,
    RefusedError,
    StreamError,
    _epoch,
    _source,
)

SMALL = {"split": "test", "batch_size": 100}


def reference(server: Server, query: str) -> pa.Table:
    """An epoch as anybody reads it, with none of the code under test."""
    body = http_get(f"{server.url}/v1/datasets/shapes/epochs/{query}")
    return pa.ipc.open_stream(io.BytesIO(body)).read_all()


def test_a_batch_is_what_the_server_sent(server: Server, client: Client) -> None:
    table = reference(server, "3/batches?schedule=cifar10-pba&batch_size=300&seed=5")
    epoch = client.epoch("shapes", 3, schedule="cifar10-pba", batch_size=300, seed=5)
    assert len(epoch) == 34
    row = 0
    for number, batch in enumerate(epoch):
        expected = table.slice(row, len(batch)).combine_chunks()
        assert batch.number == number
        assert batch.image.shape == (len(batch), 32, 32, 3) and batch.image.dtype == np.uint8
        assert batch.label.shape == (len(batch),) and batch.label.dtype == np.int64
        assert batch.index.shape == (len(batch),) and batch.index.dtype == np.uint64
        assert isinstance(batch.record_batch.column("image"), pa.FixedShapeTensorArray)
        assert batch.record_batch.schema.equals(table.schema, check_metadata=False)
        assert batch.table.equals(expected)
        tensor = expected.column("image").combine_chunks()
        tensor = tensor.chunk(0) if isinstance(tensor, pa.ChunkedArray) else tensor
        assert np.array_equal(batch.image, tensor.to_numpy_ndarray())
        assert batch.label.tolist() == expected.column("label").to_pylist()
        assert batch.index.tolist() == expected.column("index").to_pylist()
        row += len(batch)
    assert row == table.num_rows == 10_000
    assert epoch.resumes == 0 and epoch.received == 34


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 128, 2000])
def test_pixels_are_not_copied(server: Server, prefetch: int, batch_size: int) -> None:
    """Every array lies in the memory that the message was received into, at a multiple of 64."""
    client = Client(server.url, prefetch=prefetch)
    with client.epoch("shapes", 0, split="test", batch_size=batch_size) as epoch:
        # The second one has the head of the first, and is decoded only for its record batch.
        for batch in [batch for batch, _ in zip(epoch, range(2))]:
            lies_where_it_was_received(batch)


def lies_where_it_was_received(batch: Batch) -> None:
    image = batch.image
    columns = batch.record_batch.columns
    received = columns[0].storage.values.buffers()[1]
    address = image.ctypes.data
    assert address == received.address and address % 64 == 0
    assert image.nbytes <= received.size
    # One allocation holds the three columns: the buffers are slices of the same parent.
    base = received.parent.address
    end = base + received.parent.size
    for array in (batch.image, batch.label, batch.index):
        assert base <= array.ctypes.data and array.ctypes.data + array.nbytes <= end
        assert array.ctypes.data % 64 == 0 and array.flags.writeable
    allocated = pa.total_allocated_bytes()
    image = batch.image
    assert pa.total_allocated_bytes() == allocated
    # It may be written to, and the record batch shows it.
    image[0, 0, 0] = [1, 2, 3]
    assert batch.record_batch.column("image").to_numpy_ndarray()[0, 0, 0].tolist() == [1, 2, 3]


def test_arrays_keep_their_memory_alive(client: Client) -> None:
    """Also when the batch, the epoch and later batches come and go."""
    arrays = [(batch.image, batch.image.copy()) for batch in client.epoch("shapes", 0, **SMALL)]
    gc.collect()
    for _ in client.epoch("shapes", 1, **SMALL):
        pass
    assert all(np.array_equal(image, copy) for image, copy in arrays)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_streams_hold_the_same(client: Client, codec: str) -> None:
    plain = client.epoch("shapes", 2, **SMALL)
    packed = client.epoch("shapes", 2, codec=codec, **SMALL)
    for a, b in zip(plain, packed):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)
        assert np.array_equal(a.index, b.index) and b.image.flags.writeable
    assert list(plain) == [] and list(packed) == []
    assert packed.bytes < plain.bytes


def test_the_metadata_is_parsed(server: Server, client: Client) -> None:
    description = client.dataset("shapes")
    with client.epoch("shapes", 7, schedule="cifar10-pba", split="test", seed=2**64 - 1) as epoch:
        metadata = epoch.metadata
        assert metadata.dataset == description["splits"]["test"]["digest"]
        assert metadata.schedule == next(
            s["digest"] for s in client.schedules() if s["name"] == "cifar10-pba"
        )
        assert (metadata.epoch, metadata.seed) == (7, 2**64 - 1)
        assert (metadata.batches, metadata.rows) == (len(epoch), 2000)
        assert metadata.mean == tuple(description["splits"]["train"]["mean"])
        assert metadata.std == tuple(description["splits"]["train"]["std"])
        assert metadata.classes == tuple(description["classes"])
        assert epoch.schema.metadata[b"pba.epoch"] == b"7"


def test_lists_and_files(client: Client) -> None:
    assert [dataset["name"] for dataset in client.datasets()] == ["shapes"]
    schedule = client.schedule("cifar10-pba")
    assert (schedule["format"], schedule["epochs"], len(schedule["segments"])) == ("pba-schedule/1", 200, 17)
    assert json.dumps(schedule)


def test_shards_are_the_whole(client: Client) -> None:
    whole = client.epoch("shapes", 1, schedule="cifar10-pba", **SMALL).read_all()
    parts = [
        client.epoch("shapes", 1, schedule="cifar10-pba", shard=shard, **SMALL).read_all()
        for shard in [(0, 3), "1/3", (2, 3)]
    ]
    assert pa.concat_tables(parts).num_rows == whole.num_rows
    assert pixels_by_index(*parts) == pixels_by_index(whole)


def test_stripes_are_the_whole(client: Client) -> None:
    whole = {batch.number: batch.index.tolist() for batch in client.epoch("shapes", 1, **SMALL)}
    striped = {
        batch.number: batch.index.tolist()
        for start in range(3)
        for batch in client.epoch("shapes", 1, start=start, step=3, **SMALL)
    }
    assert striped == whole


def pixels_by_index(*tables: pa.Table) -> dict:
    pixels = {}
    for table in tables:
        for batch in table.to_batches():
            for index, image in zip(batch["index"].to_pylist(), batch["image"].to_numpy_ndarray()):
                assert index not in pixels, f"index {index} came twice"
                pixels[index] = image.tobytes()
    return pixels


def test_a_policy_is_a_list_or_text(client: Client) -> None:
    levels = [0] * 60
    levels[10] = 9
    one = client.epoch("shapes", 0, policy=levels, **SMALL).read_all()
    other = client.epoch("shapes", 0, policy=",".join(map(str, levels)), **SMALL).read_all()
    assert one.equals(other)


def test_an_empty_rest_is_an_epoch(client: Client) -> None:
    epoch = client.epoch("shapes", 0, start=20, **SMALL)
    assert len(epoch) == 0 and list(epoch) == [] and list(epoch) == []


@pytest.mark.parametrize(
    ("arguments", "parameter", "value", "says"),
    [
        ({"batch_size": 0}, "batch_size", "0", "1..=65536"),
        ({"batch_size": 2.5}, "batch_size", "2.5", "not an integer"),
        ({"batch_size": "many"}, "batch_size", "many", "not an integer"),
        ({"seed": -1}, "seed", "-1", "out of range"),
        ({"seed": True}, "seed", "true", "not an integer"),
        ({"split": "validation"}, "split", "validation", "train, val or test"),
        ({"shuffle": "yes"}, "shuffle", "yes", "true or false"),
        ({"shard": (3, 3)}, "shard", "3/3", "out of range"),
        ({"shard": "half"}, "shard", "half", "i/n"),
        ({"start": 80}, "start", "80", "0..=79"),
        ({"start": -1}, "start", "-1", "out of range"),
        ({"step": 0}, "step", "0", "out of range"),
        ({"drop_last": 3}, "drop_last", "3", "true or false"),
        ({"ablation": "melt", "schedule": "cifar10-pba"}, "ablation", "melt", "flatten"),
        ({"policy": [1, 2, 3]}, "policy", "1,2,3", "60"),
        ({"epochs": 0}, "epochs", "0", "out of range"),
        ({"base": "crop&flip"}, "base", "crop&flip", "pad_crop"),
        ({"codec": "gzip"}, "codecs", "gzip", "zstd"),
        ({"schedule": "cifar10_pba"}, "schedule", "cifar10_pba", 'did you mean "cifar10-pba"'),
    ],
)
def test_refusals_name_what_is_wrong(client: Client, arguments: dict, parameter: str, value: str, says: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        client.epoch("shapes", 0, **arguments)
    error = refusal.value
    assert isinstance(error, ValueError) and isinstance(error, PbaError)
    assert error.status == (404 if parameter == "schedule" else 400)
    assert (error.parameter, error.value) == (parameter, value)
    assert error.allowed
    assert says in error.detail or says in error.allowed
    assert error.detail in str(error)


@pytest.mark.parametrize("epoch", [-1, 200, "one"])
def test_epochs_out_of_range_are_refused(client: Client, epoch) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RefusedError) as refusal:
        client.epoch("shapes", epoch, schedule="cifar10-pba")
    assert (refusal.value.status, refusal.value.parameter) == (400, "epoch")


@pytest.mark.parametrize("call", [lambda c: c.epoch("shape", 0), lambda c: c.dataset("shape")])
def test_an_unknown_dataset_is_told_the_nearest(client: Client, call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RefusedError, match='did you mean "shapes"') as refusal:
        call(client)
    error = refusal.value
    assert (error.status, error.parameter, error.value) == (404, "dataset", "shape")
    assert error.allowed == "shapes"


def test_names_stay_in_their_segment(client: Client) -> None:
    for name in ("../schedules", "a b", "a/b", "a?b", "\u00fc"):
        with pytest.raises(RefusedError) as refusal:
            client.dataset(name)
        assert (refusal.value.status, refusal.value.value) == (404, name)


def test_errors_travel_between_processes(client: Client) -> None:
    import pickle

    with pytest.raises(RefusedError) as refusal:
        client.epoch("shapes", 0, batch_size=0)
    copy = pickle.loads(pickle.dumps(refusal.value))
    assert vars(copy) == vars(refusal.value) and str(copy) == str(refusal.value)
    cut = CutError("it was cut", received=2, expected=6, attempts=3, seconds=1.5, reason="no server answers")
    copy = pickle.loads(pickle.dumps(cut))
    assert vars(copy) == vars(cut) and str(copy) == str(cut)


# Leaving early.


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_a_loop_left_early_leaves_nothing(server: Server, prefetch: int) -> None:
    client = Client(server.url, prefetch=prefetch)
    for batch in client.epoch("shapes", 0, batch_size=16):
        if batch.number == 3:
            break
    del batch
    server.wait_idle()
    wait_for(lambda: not client_threads(), "a thread is left behind")


def test_close_ends_a_stream(server: Server, client: Client) -> None:
    epoch = client.epoch("shapes", 0, batch_size=16)
    next(epoch)
    epoch.close()
    epoch.close()
    assert not client_threads()
    with pytest.raises(ValueError, match="closed after 1 of 625 batches"):
        next(epoch)


def test_with_ends_a_stream(server: Server, client: Client) -> None:
    with pytest.raises(RuntimeError, match="in the loop"), client.epoch("shapes", 0) as epoch:
        for _ in epoch:
            raise RuntimeError("in the loop")
    assert not client_threads()


def test_a_closed_whole_epoch_is_still_over(client: Client) -> None:
    with client.epoch("shapes", 0, **SMALL) as epoch:
        assert len(list(epoch)) == 20
    assert list(epoch) == []


def test_a_slow_loop_holds_few_batches(server: Server) -> None:
    """The thread takes a permit per batch, so that a trainer that waits holds no more."""
    epoch = Client(server.url, prefetch=2).epoch("shapes", 0, batch_size=16)
    next(epoch)
    reader = epoch._source.reader
    wait_for(lambda: reader.received == 3, "the thread does not read ahead")
    time.sleep(0.3)  # long enough for hundreds of batches, if nothing held the thread back
    assert reader.received == 3
    for _ in range(5):
        next(epoch)
    assert epoch.server_waited_seconds > 0.2
    epoch.close()


def test_an_interrupt_loses_no_batch(client: Client) -> None:
    """Ctrl-C may strike between the queue and the loop; what it took is fetched again."""
    expected = [batch.index.tolist() for batch in client.epoch("shapes", 0, **SMALL)]
    for position in (0, 7, 19):
        epoch = client.epoch("shapes", 0, **SMALL)
        got = [next(epoch).index.tolist() for _ in range(position)]
        epoch._source.next()  # taken, and never handed over
        got += [batch.index.tolist() for batch in epoch]
        assert got == expected


def test_an_interrupted_read_continues(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prefetch Ctrl-C strikes in the middle of a message."""
    client = Client(server.url, prefetch=0)
    expected = [batch.index.tolist() for batch in client.epoch("shapes", 0, **SMALL)]
    original, calls = http.client.HTTPResponse.readinto, [0]

    def interrupted(self, buffer):  # type: ignore[no-untyped-def]
        calls[0] += 1
        if calls[0] in (3, 11, 15):
            original(self, memoryview(buffer)[: len(buffer) // 2])
            raise KeyboardInterrupt
        return original(self, buffer)

    epoch = client.epoch("shapes", 0, **SMALL)
    monkeypatch.setattr(http.client.HTTPResponse, "readinto", interrupted)
    got, interrupts = [], 0
    while len(got) < len(expected):
        try:
            got.append(next(epoch).index.tolist())
        except KeyboardInterrupt:
            interrupts += 1
    assert (got, interrupts) == (expected, 3) and list(epoch) == []


def test_a_signal_may_close_an_epoch_that_is_read(server: Server) -> None:
    """The handler runs in the thread that reads, in the middle of it."""
    with CuttingProxy(server.address, [300_000], hang=True) as proxy:
        epoch = Client(proxy.url, prefetch=0).epoch("shapes", 0, batch_size=2000)
        before = signal.signal(signal.SIGUSR1, lambda *_: epoch.close())
        reader = threading.get_ident()

        def close() -> None:
            wait_for(lambda: is_within(sys._current_frames()[reader], "readinto"), "nothing is read")
            os.kill(os.getpid(), signal.SIGUSR1)

        closer = threading.Thread(target=close)
        closer.start()
        try:
            with pytest.raises(StreamError, match="middle of the body|was closed"):
                next(epoch)
        finally:
            closer.join()
            signal.signal(signal.SIGUSR1, before)


def is_within(frame: Optional[FrameType], function: str) -> bool:
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def test_a_fork_reads_on_for_itself(server: Server) -> None:
    """Both processes have a stream of their own, and both read every batch."""
    for prefetch in (0, 2):
        epoch = Client(server.url, prefetch=prefetch).epoch("shapes", 0, **SMALL)
        expected = [batch.index.tolist() for batch in Client(server.url).epoch("shapes", 0, **SMALL)]
        got = [next(epoch).index.tolist()]
        child = os.fork()
        if child == 0:
            try:
                rest = [batch.index.tolist() for batch in epoch]
                os._exit(0 if got + rest == expected else 1)
            except BaseException:
                os._exit(2)
        got += [batch.index.tolist() for batch in epoch]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert got == expected and epoch.resumes == 0


def test_prefetch_is_decided_by_distance_and_size(server: Server, client: Client) -> None:
    """A thread fetches what is large, compressed, or from another machine; unless it is said otherwise."""
    for options, prefetch, threads in [
        ({"batch_size": 128}, None, 0),
        ({"batch_size": 340}, None, 0),
        ({"batch_size": 350}, None, 1),
        ({"batch_size": 128, "codec": "zstd"}, None, 1),
        ({"batch_size": 128}, 2, 1),
        ({"batch_size": 2000}, 0, 0),
    ]:
        with Client(server.url, prefetch=prefetch).epoch("shapes", 0, **options) as epoch:
            next(epoch)
            assert len(client_threads()) == threads, (options, prefetch)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_threads_share_an_epoch(server: Server, prefetch: int) -> None:
    epoch = Client(server.url, prefetch=prefetch).epoch("shapes", 0, batch_size=50)
    taken_by_threads(epoch)


def test_an_error_in_the_thread_reaches_the_loop(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from pba_client._reader import Reader

    epoch = client.epoch("shapes", 0, **SMALL)
    original = Reader.next

    def failing(self):  # type: ignore[no-untyped-def]
        if self.received == 5:
            raise MemoryError("as an example")
        return original(self)

    monkeypatch.setattr(Reader, "next", failing)
    epoch._restart()
    assert [next(epoch).number for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(MemoryError, match="as an example"):
        next(epoch)
    assert not client_threads()
    monkeypatch.undo()
    # The position is kept.
    assert [batch.number for batch in epoch] == list(range(5, 20))


class Clock:
    """The time of an epoch, which passes only where a test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wait_seconds: float) -> None:
        self.now = 1000.0
        monkeypatch.setattr(_epoch, "time", SimpleNamespace(perf_counter=lambda: self.now))
        original = _source.Direct.next

        def slowly(source: _source.Direct) -> _source.Item:
            item = original(source)
            self.now += 0.0 if item[1] is None else wait_seconds
            return item

        monkeypatch.setattr(_source.Direct, "next", slowly)


def test_who_waits_for_whom_is_said_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pba_client")

    def said(client: Client, wait_seconds: float, work_seconds: float, batches: int = 20) -> list:
        with monkeypatch.context() as patched:
            clock = Clock(patched, wait_seconds)
            caplog.clear()
            epoch = client.epoch("shapes", 3, **SMALL)
            for _ in zip(range(batches), epoch):
                clock.now += work_seconds
            list(epoch) if batches == 20 else epoch.close()
        assert epoch.waited_seconds == pytest.approx(batches * wait_seconds)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    client = Client(server.url, prefetch=0)
    # Less than 5 s, less than 10 %, and not to the end.
    for wait_seconds, work_seconds, batches in [(0.2, 0.0, 20), (0.2, 0.2, 20), (9.0, 1.0, 19)]:
        assert said(client, wait_seconds, work_seconds, batches) == []
    slow = "for batches: the server or the network is too slow; with headspace=True a Loader shows how fast the loop"
    ((level, message),) = said(client, 0.5, 1.0)
    assert level == "WARNING" and message.startswith(f"epoch 3: the loop waited 10.0 s of 30.0 s (33 %) {slow}")
    ((level, message),) = said(client, 0.05, 1.0)
    assert level == "INFO" and message == (
        "epoch 3: the loop waited 1.0 s of 21.0 s (5 %) for batches: the loop is what takes the time, and the server "
        "waited for it"
    )
    assert said(client, 0.5, 1.0) == said(client, 0.05, 1.0) == [], "once for each client"
    assert len(said(Client(server.url, prefetch=0), 0.5, 1.0)) == 1
    # In a worker of a DataLoader, and where a cut was said already.
    for name, value in [("_process", -1), ("_said", {logging.WARNING})]:
        client = Client(server.url, prefetch=0)
        setattr(client._remarks, name, value)
        assert said(client, 0.5, 1.0) == []
    with CuttingProxy(server.address, [900_000]) as proxy:
        records = said(Client(proxy.url, prefetch=0), 0.5, 1.0)
    assert len(records) == 1 and "the stream was cut after" in records[0][1]


def test_many_epochs_at_a_time(server: Server, client: Client) -> None:
    epochs = [client.epoch("shapes", number, **SMALL) for number in range(12)]
    sums = [0] * len(epochs)
    for batches in zip(*epochs):
        for position, batch in enumerate(batches):
            sums[position] += int(batch.index.sum())
    assert sums == [sum(range(2000))] * 12
    del epochs, batches, batch


def test_epochs_do_not_grow(server: Server, client: Client) -> None:
    """Batches that are not held give their memory back."""
    for _ in range(3):
        for _ in client.epoch("shapes", 0, batch_size=1000):
            pass
        gc.collect()
    before = pa.total_allocated_bytes()
    for number in range(5):
        for _ in client.epoch("shapes", number, batch_size=1000):
            assert pa.total_allocated_bytes() - before < 6 * 3_100_000
    del _
    gc.collect()
    assert pa.total_allocated_bytes() <= before
    assert threading.active_count() <= 2
