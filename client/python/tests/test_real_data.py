"""CIFAR-10 from Parquet files, compared with Pillow's reading of the same files.

Set PBA_TEST_DATA to a folder with train.parquet and test.parquet of CIFAR-10 in the Hugging Face
image layout. The files are too large to keep beside the code, and no test fetches anything from
the network, so without the variable there is nothing to compare with.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Server
from PIL import Image

from pba_client import Client, Loader

DATA = os.environ.get("PBA_TEST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="PBA_TEST_DATA names no folder with CIFAR-10 in Parquet (170 MB, not in the repository)"
)
# Decoding one JPEG with Pillow takes 0.1 ms; of the train split a sample is enough.
TRAIN_SAMPLE = 5_000


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("cifar"), "--dataset", f"cifar10={DATA}")
    yield server
    server.wait_idle()
    server.stop()


def parquet(split: str):  # type: ignore[no-untyped-def]
    """The encoded images, the labels, and the names of the classes, as the file has them."""
    table = pq.read_table(Path(str(DATA)) / f"{split}.parquet")
    images = next(name for name in table.column_names if name in ("img", "image"))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    return (
        table[images].combine_chunks().field("bytes"),
        np.array(table["label"]),
        features["label"]["names"],
    )


def decode(encoded) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.asarray(Image.open(io.BytesIO(encoded.as_py())).convert("RGB"))


def test_an_epoch_of_fifty_thousand(cifar: Server) -> None:
    _, labels, names = parquet("train")
    loader = Loader(cifar.url, "cifar10", "cifar10-pba", 200, batch_size=128)
    assert len(loader) == 391
    assert list(loader.classes) == names
    seen = np.zeros(50_000, np.int64)
    with loader.epoch(199) as epoch:
        assert (epoch.metadata.batches, epoch.metadata.rows) == (391, 50_000)
        batches = 0
        for batch in epoch:
            assert batch.image.shape == (len(batch), 32, 32, 3)
            assert len(batch) == 128 or batch.number == 390
            assert np.array_equal(batch.label, labels[batch.index.astype(np.int64)])
            np.add.at(seen, batch.index.astype(np.int64), 1)
            batches += 1
    assert batches == 391 and (seen == 1).all()


def test_pixels_of_the_test_split_are_pillows(cifar: Server) -> None:
    encoded, labels, names = parquet("test")
    epoch = Client(cifar.url).epoch("cifar10", 0, split="test", schedule="identity", shuffle=True)
    assert list(epoch.metadata.classes) == names
    differing, seen = 0, set()
    for batch in epoch:
        for image, label, index in zip(batch.image, batch.label, batch.index.tolist()):
            differing += not np.array_equal(image, decode(encoded[index]))
            assert label == labels[index]
            seen.add(index)
    assert (differing, len(seen)) == (0, 10_000)


def test_pixels_of_the_train_split_are_pillows(cifar: Server) -> None:
    encoded, _, _ = parquet("train")
    shard = (3, 50_000 // TRAIN_SAMPLE)
    epoch = Client(cifar.url).epoch("cifar10", 0, schedule="identity", shard=shard)
    differing = compared = 0
    for batch in epoch:
        for image, index in zip(batch.image, batch.index.tolist()):
            differing += not np.array_equal(image, decode(encoded[index]))
            compared += 1
    assert (differing, compared) == (0, TRAIN_SAMPLE)


def test_the_statistics_are_the_pixels(cifar: Server) -> None:
    loader = Loader(cifar.url, "cifar10", "identity", batch_size=1000)
    total, squares = np.zeros(3), np.zeros(3)
    for batch in loader(0):
        pixels = batch.image.reshape(-1, 3) / 255.0
        total += pixels.sum(0)
        squares += (pixels**2).sum(0)
    count = 50_000 * 32 * 32
    mean = total / count
    assert np.allclose(loader.mean, mean, atol=1e-6)
    assert np.allclose(loader.std, np.sqrt(squares / count - mean**2), atol=1e-5)
