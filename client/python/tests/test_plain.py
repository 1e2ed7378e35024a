"""The stream is Arrow over HTTP: others read it without this package."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Callable

import numpy as np
import polars
import pyarrow as pa
import pytest
from conftest import Server
from script import Script, answer, stream

from pba_client import Batch, Client, CutError, Epoch


@pytest.fixture
def downloaded(server: Server, tmp_path: Path) -> Path:
    """An epoch as a file, by curl where there is one."""
    url = f"{server.url}/v1/datasets/shapes/epochs/3/batches?schedule=cifar10-pba"
    path = tmp_path / "epoch.arrows"
    if shutil.which("curl"):
        subprocess.run(["curl", "-sSf", "-o", str(path), url], check=True)
    else:
        urllib.request.urlretrieve(url, path)
    return path


def test_pyarrow_reads_a_download(client: Client, downloaded: Path) -> None:
    with pa.memory_map(str(downloaded)) as source:
        table = pa.ipc.open_stream(source).read_all()
        assert table.schema.metadata[b"pba.rows"] == b"10000"
        assert sorted(table["index"].to_pylist()) == list(range(10_000))
        for chunk, batch in zip(table["image"].chunks, client.epoch("shapes", 3, schedule="cifar10-pba")):
            assert isinstance(chunk, pa.FixedShapeTensorArray)
            assert np.array_equal(chunk.to_numpy_ndarray(), batch.image)
        del table, chunk


def test_pyarrow_reads_an_open_connection(server: Server, client: Client) -> None:
    url = f"{server.url}/v1/datasets/shapes/epochs/0/batches?split=test"
    with urllib.request.urlopen(url) as response:
        table = pa.ipc.open_stream(response).read_all()
    assert table.equals(client.epoch("shapes", 0, split="test").read_all())


def test_polars_reads_a_download(client: Client, downloaded: Path) -> None:
    """polars shows the column under its extension's name; its storage is an array per image."""
    frame = polars.read_ipc_stream(downloaded)
    assert frame.columns == ["image", "label", "index"] and frame.height == 10_000
    assert frame["index"].sort().to_list() == list(range(10_000))
    assert frame["label"].dtype == polars.Int64 and frame["index"].dtype == polars.UInt64
    counts = frame.group_by("label").len().sort("label")["len"].to_list()
    image = frame["image"]
    # Versions of polars that know no extension types show the storage at once.
    storage = image.ext.storage() if hasattr(image, "ext") else image
    assert storage.dtype == polars.Array(polars.UInt8, 32 * 32 * 3)
    pixels = storage.to_numpy().reshape(-1, 32, 32, 3)
    row = 0
    for batch in client.epoch("shapes", 3, schedule="cifar10-pba"):
        assert np.array_equal(pixels[row : row + len(batch)], batch.image)
        row += len(batch)
    expected = np.bincount(frame["label"].to_numpy())
    assert counts == expected.tolist() and row == 10_000


# An epoch of the client, by Arrow's C interface.


def test_pyarrow_reads_an_epoch_as_a_stream(server: Server, client: Client) -> None:
    request = {"split": "test", "batch_size": 100}
    expected = client.epoch("shapes", 0, **request).read_all()
    with client.epoch("shapes", 0, **request) as epoch:
        first = next(epoch)
        with pa.RecordBatchReader.from_stream(epoch) as reader:
            assert reader.schema.equals(epoch.schema, check_metadata=True)
            assert epoch.received == 1, "nothing is read before it is asked for"
            second = reader.read_next_batch()
            assert epoch.received == 2
            rest = reader.read_all()
        assert epoch.received == 20
    batches = [first.record_batch, second, *rest.to_batches()]
    assert pa.Table.from_batches(batches).equals(expected)
    # A table of what was read already would be empty.
    with pytest.raises(ValueError, match="read to its end, all 20 batches; open it again"):
        pa.RecordBatchReader.from_stream(epoch)
    assert pa.table(client.epoch("shapes", 0, start=20, **request)).num_rows == 0
    wanted = pa.RecordBatchReader.from_stream(client.epoch("shapes", 0, **request), schema=epoch.schema)
    assert wanted.read_all().equals(expected)


def test_a_stream_is_not_copied(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches lie where those of the epoch do."""
    places = []
    original = Epoch.__next__

    def noting(epoch: Epoch) -> Batch:
        batch = original(epoch)
        places.append(batch.image.ctypes.data)
        return batch

    monkeypatch.setattr(Epoch, "__next__", noting)
    reader = pa.RecordBatchReader.from_stream(client.epoch("shapes", 0, split="test", batch_size=100))
    assert [batch.column(0).storage.values.buffers()[1].address for batch in reader] == places
    assert len(places) == 20


def test_polars_reads_an_epoch(client: Client) -> None:
    request = {"split": "test", "batch_size": 100}
    expected = client.epoch("shapes", 0, **request).read_all()
    frame = polars.DataFrame(client.epoch("shapes", 0, **request))
    assert frame.columns == ["image", "label", "index"] and frame.height == 2000
    assert frame["index"].to_list() == expected["index"].to_pylist()
    image = frame["image"]
    storage = image.ext.storage() if hasattr(image, "ext") else image
    pixels = np.concatenate([chunk.to_numpy_ndarray() for chunk in expected["image"].chunks])
    assert np.array_equal(storage.to_numpy().reshape(-1, 32, 32, 3), pixels)


@pytest.mark.parametrize("how", ["cut", "closed"])
def test_an_error_in_a_stream_is_no_early_end(how: str) -> None:
    """Whoever reads it."""
    readers = [
        (lambda epoch: pa.RecordBatchReader.from_stream(epoch).read_all(), (OSError, pa.ArrowException)),
        (lambda epoch: list(pa.RecordBatchReader.from_stream(epoch)), (OSError, pa.ArrowException)),
        # Some versions of polars panic.
        (polars.DataFrame, (polars.exceptions.PolarsError, polars.exceptions.PanicException)),
    ]
    for read, kinds in readers:
        with Script(answer(stream(4, 4))[: -400 if how == "cut" else None]) as script:
            epoch = Client(script.url, retry_seconds=0, prefetch=0).epoch("d", 0)
            if how == "closed":
                next(epoch)
                epoch.close()
            with pytest.raises(kinds, match="after 2 of 4 batches" if how == "cut" else "closed after 1 of 4"):
                read(epoch)


def test_a_stream_that_failed_has_no_end() -> None:
    """Whoever asks once more is told the error once more, where the end would look as if all had come."""
    with Script(answer(stream(4, 4))[:-400]) as script:
        reader = pa.RecordBatchReader.from_stream(Client(script.url, retry_seconds=0, prefetch=0).epoch("d", 0))
        assert reader.read_next_batch().num_rows > 0 and reader.read_next_batch().num_rows > 0
        for _ in range(3):
            with pytest.raises((OSError, pa.ArrowException), match="after 2 of 4 batches"):
                reader.read_next_batch()


def cut_in_the_middle(script: Script) -> Epoch:
    """An epoch of four batches, of which the first two arrive."""
    return Client(script.url, retry_seconds=0, prefetch=0).epoch("d", 0)


TABLES = [
    lambda epoch: epoch.read_all(),
    lambda epoch: pa.RecordBatchReader.from_stream(epoch).read_all(),
    lambda epoch: polars.DataFrame(epoch),
]
FAILURES = (CutError, OSError, pa.ArrowException, polars.exceptions.PolarsError, polars.exceptions.PanicException)


def test_a_table_is_that_of_an_epoch_whatever_a_loop_takes(client: Client) -> None:
    """A reader that has begun would lack what a loop took, or have it twice."""
    takes = [list, next, lambda epoch: epoch.load_state_dict(start)]
    for take in takes:
        epoch = client.epoch("shapes", 0, split="test", batch_size=500)
        start = epoch.state_dict()
        reader = pa.RecordBatchReader.from_stream(epoch)
        reader.read_next_batch()
        take(epoch)
        for _ in range(2):
            with pytest.raises((OSError, pa.ArrowException, ValueError), match="the epoch was after 1 batches when this table"):
                reader.read_next_batch()
        epoch.close()


@pytest.mark.parametrize("first", TABLES)
def test_a_table_that_failed_is_not_followed_by_its_rest(first: Callable[[Epoch], Any]) -> None:
    """It would look like a whole one."""
    begun = stream(4, 4)
    for second in TABLES:
        with Script(answer(begun)[:-400], answer(stream(2, 2, first=2))) as script:
            epoch = cut_in_the_middle(script)
            with pytest.raises(FAILURES, match="after 2 of 4 batches"):
                first(epoch)
            for _ in range(2):
                with pytest.raises(ValueError, match="its first 2 of 4 batches.*open the epoch again"):
                    second(epoch)
            # A loop still goes on, as after any batch that failed.
            assert [batch.index[0] for batch in epoch] == [2, 3]
            with pytest.raises(ValueError, match="open the epoch again|open it again"):
                second(epoch)


def test_a_table_that_has_taken_nothing_may_be_made_again() -> None:
    """As by readers that look at the schema first; but only one of them gets the batches."""
    request = answer(stream(4, 4))
    with Script(request) as script:
        epoch = cut_in_the_middle(script)
        readers = [pa.RecordBatchReader.from_stream(epoch) for _ in range(2)]
        assert readers[1].read_next_batch()["index"].to_pylist() == [0]
        with pytest.raises((OSError, pa.ArrowException), match="its first 1 of 4 batches"):
            readers[0].read_next_batch()
        assert readers[1].read_all()["index"].to_pylist() == [1, 2, 3]
    # What failed before its first batch.
    with Script(request[:-1500], request) as script:
        epoch = cut_in_the_middle(script)
        with pytest.raises(CutError, match="after 0 of 4 batches"):
            epoch.read_all()
        assert epoch.read_all().num_rows == 4
    # A position that was set says what the next one holds.
    with Script(request, answer(stream(3, 3, first=1))) as script:
        epoch = cut_in_the_middle(script)
        next(epoch)
        state = epoch.state_dict()
        assert epoch.read_all().num_rows == 3
        epoch.load_state_dict(state)
        assert epoch.read_all().num_rows == 3
