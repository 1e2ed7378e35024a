"""The adapter for PyTorch.

torch takes a gigabyte on disk, so `make test` installs it and the frameworks around it only with PBA_TEST_FRAMEWORKS=1,
and runs these in an environment of their own.
"""

from __future__ import annotations

import warnings
from inspect import signature

import numpy as np
import pytest
from conftest import Server

torch = pytest.importorskip("torch", reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only")

from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from pba_client import BatchIterator, Loader, PbaError, PbaWarning, RefusedError
from pba_client.torch import EpochDataset, Pair, prefetch, tensors
from torch_data import OPTIONS, dataset, expected, rows

# More workers than the machine has cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


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


def test_ranks_are_looked_up_when_a_loop_begins(server: Server, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    data = dataset(server)
    assert len(rows(data)) == len(data) == 20
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(PbaError, match="RANK is None and WORLD_SIZE '4' in the environment"):
        iter(data)
    monkeypatch.setenv("RANK", "3")
    assert rows(data) == expected(server, 1, rank=3, world_size=4) and len(data) == 5
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(PbaError, match="expected 0 <= RANK < WORLD_SIZE"):
        iter(data)
    monkeypatch.setenv("RANK", "3")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        with pytest.raises(PbaError, match="rank 0 of 1 in the process group, and rank 3 of 4 by RANK"):
            iter(data)
        given = dataset(server, rank=1, world_size=2)
        assert rows(given) == expected(server, 0, rank=1, world_size=2)
        # Lightning sets only one of them, and makes a group.
        monkeypatch.delenv("RANK")
        assert len(data) == 20
        monkeypatch.delenv("WORLD_SIZE")
        assert data.epoch == 2 and rows(DataLoader(data, batch_size=None, num_workers=2)) == expected(server, 2)
    finally:
        torch.distributed.destroy_process_group()
    with pytest.raises(ValueError, match="rank is 1 and world_size None; expected both, or neither"):
        dataset(server, rank=1)


def test_batches_in_no_order_are_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="in_order=False"):
        iter(DataLoader(dataset(server), batch_size=None, num_workers=2, in_order=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_batches_are_refused(server: Server, workers: int) -> None:
    for loader in (DataLoader(dataset(server), num_workers=workers), StatefulDataLoader(dataset(server), batch_size=8)):
        with pytest.raises(ValueError, match="Pass batch_size=None to the DataLoader"):
            iter(loader)


def in_another_process(data: EpochDataset, queue) -> None:  # type: ignore[no-untyped-def]
    """A process that has made no dataset of its own."""
    try:
        next(iter(DataLoader(data)))
    except ValueError as error:
        queue.put(str(error))
    loader = StatefulDataLoader(data, batch_size=None, num_workers=1)
    next(iter(loader))
    queue.put(loader.state_dict())


def test_a_dataset_that_was_sent_is_watched_too(server: Server) -> None:
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=in_another_process, args=(dataset(server), queue))
    process.start()
    assert "Pass batch_size=None" in queue.get(timeout=60)
    assert queue.get(timeout=60)["pba_client"]["samples"] == 100
    process.join()


def test_the_loader_of_a_dataset_is_of_its_rank(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(server)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(data.loader) == len(data) == 10 and data.loader.rank == 1
    assert len(rows(data)) == 10 and data.classes[0] == "disc" and len(data.mean) == len(data.std) == 3
    # What it would read, the dataset would not count.
    for read in (data.loader.epoch, data.loader, lambda _: next(BatchIterator(data.loader, 2))):
        with pytest.raises(PbaError, match="the loader of an EpochDataset opens no epochs"):
            read(1)


def test_what_is_hardly_meant_is_warned_of(server: Server) -> None:
    with pytest.warns(PbaWarning, match="split='test' is streamed with the schedule 'cifar10-pba', so that") as caught:
        EpochDataset(server.url, "shapes", "cifar10-pba", 200, split="test")
    assert caught[0].filename == __file__
    with pytest.warns(PbaWarning, match="followed at its own length of 200 epochs") as caught:
        EpochDataset(server.url, "shapes", "cifar10-pba")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for schedule in ("none", "identity", None, "randaugment:2:9"):
            EpochDataset(server.url, "shapes", schedule)
        EpochDataset(server.url, "shapes", split="test")


def test_flags_are_flags(server: Server) -> None:
    for name in ("as_dict", "channels_first"):
        with pytest.raises(ValueError, match=f"{name} is 'no'; expected True or False"):
            EpochDataset(server.url, "shapes", **{name: "no"})


def test_options_are_those_of_a_loader() -> None:
    dataset_options, options = (signature(kind.__init__).parameters for kind in (EpochDataset, Loader))
    own = ("channels_first", "as_dict")
    assert [name for name in dataset_options if name not in own] == list(options)
    for name in set(options) - {"rank", "world_size"}:
        assert dataset_options[name] == options[name], name


def test_errors_of_workers(server: Server) -> None:
    data = EpochDataset(server.url, "shapes", "cifar10-pba", 2, batch_size=100)
    data.set_epoch(2)
    with pytest.raises(RefusedError, match="0..=1"):
        next(iter(data))
    data.set_epoch(2)
    with pytest.raises(RefusedError, match="0..=1"):
        next(iter(DataLoader(data, batch_size=None, num_workers=1)))


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_of_one_type(server: Server, workers: int) -> None:
    data = dataset(server, as_dict=False)
    for loader in (data, DataLoader(data, batch_size=None, num_workers=workers), prefetch(data, "cpu")):
        batch = next(iter(loader))
        image, label = batch
        assert type(batch) is Pair and batch.image is image and len(label) == 100
        data.set_epoch(0)
    pinned = DataLoader(dataset(server), batch_size=None, num_workers=workers)
    assert set(next(iter(pinned))) == {"image", "label", "index"}


def test_planes_are_normalised(server: Server) -> None:
    data = dataset(server, channels_first=True, as_dict=False)
    raw = Loader(server.url, "shapes", **OPTIONS)
    for (image, label), batch in zip(data, raw(0)):
        assert image.shape == (100, 3, 32, 32) and image.dtype == torch.float32
        wanted = (batch.image / 255.0 - raw.mean) / raw.std
        assert np.allclose(image.numpy(), wanted.transpose(0, 3, 1, 2), atol=1e-5)
        assert label.tolist() == batch.label.tolist()


def test_a_channel_that_never_changes_is_finite(server: Server) -> None:
    data = dataset(server, channels_first=True, as_dict=False)
    data._loader.std = np.array([0.25, 0.0, 0.25], np.float32)
    image, _ = next(iter(data))
    assert torch.isfinite(image).all()
