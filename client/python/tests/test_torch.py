"""The adapter for PyTorch.

torch takes 800 MB of downloads and more on disk, so `make test` does not install it; where you have
it in their environment runs these.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from conftest import Server

torch = pytest.importorskip("torch", reason="torch (800 MB) is not installed by `make test`")

from torch.utils.data import DataLoader

from pba_client import Loader
from pba_client.torch import EpochDataset, tensors


def dataset(server: Server, **options) -> EpochDataset:  # type: ignore[no-untyped-def]
    options = {"batch_size": 100, "split": "test", "as_dict": True, **options}
    return EpochDataset(server.url, "shapes", "cifar10-pba", 200, **options)


def rows(batches) -> list:  # type: ignore[no-untyped-def]
    return [(batch["index"].tolist(), batch["image"].numpy().tobytes()) for batch in batches]


def test_tensors_share_the_memory(server: Server) -> None:
    with Loader(server.url, "shapes").epoch(0) as epoch, warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written to
        batch = next(epoch)
        converted = tensors(batch)
    assert converted["image"].data_ptr() == batch.image.ctypes.data
    assert converted["label"].data_ptr() == batch.label.ctypes.data
    assert converted["index"].data_ptr() == batch.index.ctypes.data
    assert converted["image"].dtype == torch.uint8 and converted["image"].shape == (128, 32, 32, 3)
    assert converted["label"].dtype == torch.int64


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 3 workers on 2 cores
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_workers_change_nothing(server: Server, workers: int) -> None:
    plain = Loader(server.url, "shapes", "cifar10-pba", 200, batch_size=100, split="test")
    data = dataset(server)
    loader = DataLoader(data, batch_size=None, num_workers=workers, persistent_workers=workers > 1)
    for epoch, start in [(0, 0), (7, 0), (7, 5), (8, 19), (8, 20)]:
        data.set_epoch(epoch, start)
        expected = [(b.index.tolist(), b.image.tobytes()) for b in plain.epoch(epoch, start=start)]
        assert len(data) == len(expected)
        assert rows(loader) == expected, (epoch, start)
    del loader


def test_planes_are_normalised(server: Server) -> None:
    data = dataset(server, channels_first=True, as_dict=False)
    raw = Loader(server.url, "shapes", "cifar10-pba", 200, batch_size=100, split="test")
    for (image, label), batch in zip(data, raw(0)):
        assert image.shape == (100, 3, 32, 32) and image.dtype == torch.float32
        expected = (batch.image / 255.0 - raw.mean) / raw.std
        assert np.allclose(image.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
        assert label.tolist() == batch.label.tolist()


def test_a_channel_that_never_changes_is_finite(server: Server) -> None:
    data = dataset(server, channels_first=True, as_dict=False)
    data.loader.std = np.array([0.25, 0.0, 0.25], np.float32)
    image, _ = next(iter(data))
    assert torch.isfinite(image).all()


def test_ranks_come_from_torch_distributed(server: Server, tmp_path) -> None:  # type: ignore[no-untyped-def]
    if not torch.distributed.is_available():
        pytest.skip("this torch was built without torch.distributed")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        assert len(rows(dataset(server))) == 20
        assert len(rows(dataset(server, rank=1, world_size=2))) == 10
    finally:
        torch.distributed.destroy_process_group()
