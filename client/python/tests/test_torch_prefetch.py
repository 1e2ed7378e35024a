"""Batches on their way to a device."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import nullcontext
from itertools import count, islice
from typing import Callable

import numpy as np
import pytest
from conftest import Server

torch = pytest.importorskip("torch", reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only")

from torch.utils.data import DataLoader, IterableDataset

from pba_client import Loader, PbaError
from pba_client.torch import prefetch
from torch_data import OPTIONS, dataset, expected, rows

# More workers than the machine has cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels_first", [False, True])
def test_prefetch_normalises(server: Server, channels_first: bool, workers: int) -> None:
    data = dataset(server)
    batches = prefetch(DataLoader(data, batch_size=None, num_workers=workers), "cpu", channels_first=channels_first)
    raw = Loader(server.url, "shapes", **OPTIONS)
    assert len(batches) == 20
    for epoch in range(2):
        for taken, (batch, plain) in enumerate(zip(batches, raw(epoch)), 1):
            wanted = ((plain.image / 255.0 - raw.mean) / raw.std).transpose((0, 3, 1, 2) if channels_first else (0, 1, 2, 3))
            assert batch["image"].dtype == torch.float32 and batch["image"].is_contiguous()
            assert np.allclose(batch["image"].numpy(), wanted, atol=1e-5)
            assert batch["label"].tolist() == plain.label.tolist() and batch["index"].tolist() == plain.index.tolist()
            assert data.state_dict()["samples"] == 100 * taken % 2000
        assert taken == 20


class NoGpu:
    """What a stream and an event are asked for, where there is no GPU: everything is done at once, and written down."""

    asked: Counter = Counter()

    def __init__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: NoGpu.asked.update([name])


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The ring of a prefetch to a GPU, with its memory on the CPU: what is ahead, what is counted and what fails."""
    monkeypatch.setattr(torch.cuda, "Stream", NoGpu)
    monkeypatch.setattr(torch.cuda, "Event", NoGpu)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", NoGpu)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: NoGpu.asked.update(["record_stream"]))
    NoGpu.asked.clear()
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **options: empty(*shape, **options))

    def copied(loader, depth: int = 2):  # type: ignore[no-untyped-def]
        batches = prefetch(loader, "cpu", depth=depth)
        return batches._copied_ahead(iter(loader))

    return copied


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_ahead_is_not_taken(server: Server, ring, workers: int) -> None:  # type: ignore[no-untyped-def]
    data = dataset(server)
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    raw = Loader(server.url, "shapes", **OPTIONS)
    for epoch, depth in enumerate((1, 2, 64)):
        for taken, (batch, plain) in enumerate(zip(ring(loader, depth), raw(epoch)), 1):
            assert batch["index"].tolist() == plain.index.tolist()
            assert data.state_dict()["samples"] == 100 * taken % 2000
            assert data.state_dict()["epoch"] == epoch + taken // 20
        assert taken == 20


def test_no_memory_is_used_before_its_time(server: Server, ring) -> None:  # type: ignore[no-untyped-def]
    """For each of 20 batches of 3 tensors: pinned memory is filled after its last copy has ended, and the loop's stream waits
    for the copy, and keeps what it was given."""
    assert len(list(ring(dataset(server)))) == 20
    fences = {"wait_stream": 1, "synchronize": 20, "record": 20 + 20, "wait_event": 20, "record_stream": 20 * 3}
    assert NoGpu.asked == fences


@pytest.mark.parametrize("is_ring", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_lost_on_its_way_is_read_again(server: Server, ring, is_ring: bool, workers: int) -> None:  # type: ignore[no-untyped-def]
    data = dataset(server)
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    batches = prefetch(loader, "cpu")
    converted, numbers = batches._converted, count()

    def full(batch):  # type: ignore[no-untyped-def]
        if next(numbers) == 4:
            raise MemoryError("the device is full")
        return converted(batch)

    batches._converted = full  # type: ignore[method-assign]
    taken = []
    with pytest.raises(MemoryError):
        for batch in batches._copied_ahead(iter(loader)) if is_ring else batches:
            taken.append(batch["index"].tolist())
            assert data.state_dict()["samples"] == 100 * len(taken)
    assert len(taken) == 4 and (data.epoch, data.state_dict()["samples"]) == (0, 400)
    taken += [batch["index"].tolist() for batch in batches]
    assert taken == [indices for indices, _ in expected(server, 0)] and data.epoch == 1
    gc.collect()


def test_what_was_ahead_of_an_error_is_not_read_twice(server: Server, ring) -> None:  # type: ignore[no-untyped-def]
    """A loop that is left before the error comes out goes on after what it has taken."""
    data = dataset(server)

    def broken(batch):  # type: ignore[no-untyped-def]
        if batch["index"].tolist() == expected(server, 0)[5][0]:
            raise ConnectionError("nothing comes")
        return batch

    taken = [batch["index"].tolist() for batch in islice(ring(DataLoader(data, batch_size=None, collate_fn=broken)), 4)]
    assert (data.epoch, data.state_dict()["samples"]) == (0, 400)
    taken += [batch["index"].tolist() for batch in data]
    assert taken == [indices for indices, _ in expected(server, 0)]
    gc.collect()


def test_a_prefetch_that_failed_is_not_at_its_end(server: Server) -> None:
    data = dataset(server)

    def broken(batch):  # type: ignore[no-untyped-def]
        if batch["index"].tolist() == expected(server, 0)[1][0]:
            raise ConnectionError("nothing comes")
        return batch

    batches = iter(prefetch(DataLoader(data, batch_size=None, collate_fn=broken), "cpu"))
    next(batches)
    with pytest.raises(ConnectionError):
        next(batches)
    for _ in range(2):
        with pytest.raises(PbaError, match="this loop has failed"):
            next(batches)
    assert (data.epoch, data.state_dict()["samples"]) == (0, 100)
    gc.collect()


class Twos(IterableDataset):
    """A dataset around another, as people write them: two batches in one."""

    def __init__(self, data) -> None:  # type: ignore[no-untyped-def]
        self.data = data

    def __iter__(self):  # type: ignore[no-untyped-def]
        batches = iter(self.data)
        for first, second in zip(batches, batches):
            yield {name: torch.cat([first[name], second[name]]) for name in first}


@pytest.mark.parametrize("is_ring", [False, True])
def test_what_is_ahead_is_counted_through_other_datasets(server: Server, ring, is_ring: bool) -> None:  # type: ignore[no-untyped-def]
    data = dataset(server)
    for epoch in range(2):
        batches = prefetch(DataLoader(Twos(data), batch_size=None), "cpu", mean=[0.5] * 3, std=[0.2] * 3)
        for taken, _ in enumerate(batches._copied_ahead(iter(batches._loader)) if is_ring else batches, 1):
            state = data.state_dict()
            assert (state["epoch"], state["samples"]) == divmod(epoch * 2000 + 200 * taken, 2000)
        assert taken == 10
    # What it has read at last, and keeps, counts as taken.
    data = dataset(server, batch_size=400)
    batches = prefetch(DataLoader(Twos(data), batch_size=None), "cpu", mean=[0.5] * 3, std=[0.2] * 3)
    assert len(list(batches._copied_ahead(iter(batches._loader)) if is_ring else batches)) == 2
    assert (data.state_dict()["epoch"], data.state_dict()["samples"]) == (1, 0)


@pytest.mark.parametrize("good", [0, 1, 2, 5])
def test_batches_before_an_error_are_given_first(server: Server, ring, good: int) -> None:  # type: ignore[no-untyped-def]
    data = dataset(server)

    def broken(batch):  # type: ignore[no-untyped-def]
        if batch["index"].tolist() == expected(server, 0)[good][0]:
            raise ConnectionError("nothing comes")
        return batch

    taken = []
    with pytest.raises(ConnectionError):
        for batch in ring(DataLoader(data, batch_size=None, collate_fn=broken)):
            taken.append(batch["index"].tolist())
    assert len(taken) == good and (data.epoch, data.state_dict()["samples"]) == (0, 100 * good)
    taken += [batch["index"].tolist() for batch in data]
    assert taken == [indices for indices, _ in expected(server, 0)]
    # The error's traceback holds the loop, and DataLoader a circle of them.
    gc.collect()


def test_prefetch_refuses_what_it_would_normalise_twice() -> None:
    batches = prefetch([(torch.zeros(2, 4, 4, 3), torch.zeros(2))], "cpu", mean=[0.5] * 3, std=[0.2] * 3)
    with pytest.raises(ValueError, match="images are torch.float32 .*normalises uint8"):
        next(iter(batches))
    with pytest.raises(ValueError, match="depth is 0; expected an integer of 1 to 64"):
        prefetch([], "cpu", depth=0)
    with pytest.raises(ValueError, match="mean and std are not known"):
        prefetch([], "cpu")


def test_prefetch_refuses_what_would_not_be_normalised() -> None:
    for wrong in ([125.3, 123.0, 113.9], [0.5, 0.5], [[0.5] * 3], [float("nan")] * 3, [-0.1, 0.5, 0.5], "grey", 0.5):
        with pytest.raises(ValueError, match="mean is .*; expected 3 numbers from 0 to 1, one for each channel"):
            prefetch([], "cpu", mean=wrong, std=[0.2] * 3)
    for wrong in ([63.0, 62.1, 66.7], [0.2, 0.0, 0.2], [float("inf")] * 3):
        with pytest.raises(ValueError, match="std is .*; expected 3 numbers above 0 to 1"):
            prefetch([], "cpu", mean=[0.5] * 3, std=wrong)
    for dtype in (torch.uint8, torch.int64, torch.bool):
        with pytest.raises(ValueError, match="dtype is torch.*; images are normalised to floating point"):
            prefetch([], "cpu", mean=[0.5] * 3, std=[0.2] * 3, dtype=dtype)
    known = {"mean": np.full(3, 0.5), "std": torch.full((3,), 0.2)}
    with pytest.raises(TypeError, match="image is a ndarray; prefetch.. takes batches of tensors"):
        next(iter(prefetch([(np.zeros((1, 4, 4, 3), np.uint8), torch.zeros(1))], "cpu", **known)))
    with pytest.raises(ValueError, match="a batch has 'pixels'; prefetch.. normalises its 'image'"):
        next(iter(prefetch([{"pixels": torch.zeros(1)}], "cpu", **known)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_prefetch_on_a_gpu(server: Server, workers: int) -> None:
    """Batches that are kept stay what they are, while those after them come through the same pinned memory."""
    data = dataset(server)
    batches = prefetch(DataLoader(data, batch_size=None, num_workers=workers), "cuda", depth=3)
    raw = Loader(server.url, "shapes", **OPTIONS)
    for epoch in range(2):
        kept = []
        for taken, batch in enumerate(batches, 1):
            kept.append(batch)
            # The loop's own stream uses it at once.
            batch["image"].mul_(2)
            assert data.state_dict()["samples"] == 100 * taken % 2000
        plain = list(raw(epoch))
        assert len(kept) == len(plain)
        for batch, expected_batch in zip(kept, plain):
            wanted = ((expected_batch.image / 255.0 - raw.mean) / raw.std).transpose(0, 3, 1, 2) * 2
            assert batch["image"].device.type == "cuda" and batch["image"].dtype == torch.float32
            assert np.allclose(batch["image"].cpu().numpy(), wanted, atol=1e-4)
            assert batch["label"].tolist() == expected_batch.label.tolist()
    for dtype, memory_format in [(torch.float16, torch.channels_last), (torch.bfloat16, torch.contiguous_format)]:
        image = next(iter(prefetch(data, "cuda", dtype=dtype, memory_format=memory_format)))["image"]
        assert image.dtype == dtype and image.is_contiguous(memory_format=memory_format)
