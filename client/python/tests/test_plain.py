"""The stream is Arrow over HTTP: others read it without this package."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import polars
import pyarrow as pa
import pytest
from conftest import Server

from pba_client import Client


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
