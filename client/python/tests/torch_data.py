"""What the tests of the adapter for PyTorch read: the small split, shuffled, whose epochs differ."""

from __future__ import annotations

from conftest import Server

from pba_client import Loader
from pba_client.torch import EpochDataset

OPTIONS = {"batch_size": 100, "split": "test", "shuffle": True}


def dataset(server: Server, **options) -> EpochDataset:  # type: ignore[no-untyped-def]
    return EpochDataset(server.url, "shapes", **{**OPTIONS, "as_dict": True, **options})


def rows(batches) -> list:  # type: ignore[no-untyped-def]
    return [(batch["index"].tolist(), batch["image"].numpy().tobytes()) for batch in batches]


def expected(server: Server, epoch: int, start: int = 0, **options) -> list:  # type: ignore[no-untyped-def]
    plain = Loader(server.url, "shapes", **{**OPTIONS, **options})
    with plain.epoch(epoch, start=start) as batches:
        return [(batch.index.tolist(), batch.image.tobytes()) for batch in batches]
