"""Loops over an EpochDataset: which epoch each reads, where it goes on, and what the state says meanwhile."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from itertools import islice

import numpy as np
import pytest
from conftest import Server

torch = pytest.importorskip("torch", reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only")

from torch.utils.data import ChainDataset, DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from pba_client import Loader, PbaError, PbaWarning
from pba_client.torch import EpochDataset, prefetch
from torch_data import OPTIONS, dataset, expected, rows

# More workers than the machine has cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
WORKERS = [
    {"num_workers": 0},
    {"num_workers": 1},
    {"num_workers": 2, "persistent_workers": True},
    {"num_workers": 3},
    {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "spawn"},
    {"num_workers": 2, "multiprocessing_context": "forkserver"},
]
KINDS = [DataLoader, StatefulDataLoader]


def read_out(loop) -> None:  # type: ignore[no-untyped-def]
    """Before its workers are ended. A spawned one that is about to send a batch may abort: as Python ends, it ends the thread
    that sends in the midst of PyTorch's code (before 3.14)."""
    for _ in loop:
        pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", WORKERS, ids=str)
def test_epochs_advance_by_themselves(server: Server, kind, workers: dict) -> None:  # type: ignore[no-untyped-def]
    data = dataset(server)
    loader = kind(data, batch_size=None, **workers)
    assert data.epoch == 0 and len(data) == len(loader) == 20
    for epoch in range(2):
        assert rows(loader) == expected(server, epoch)
    # An epoch that was left early is over, too, with a warning.
    assert rows(islice(loader, 3)) == expected(server, 2)[:3]
    assert data.epoch == 3
    with pytest.warns(PbaWarning, match="was left after 3 of 20 batches"):
        assert rows(loader) == expected(server, 3)
    data.set_epoch(7)
    assert rows(loader) == expected(server, 7)
    for epoch, start in [(7, 5), (8, 19), (8, 20), (8, 0)]:
        data.set_epoch(epoch, start)
        assert rows(loader) == expected(server, epoch, start), (epoch, start)
    assert data.epoch == 9
    with pytest.raises(ValueError, match="start is 21; this rank has 20 batches"):
        data.set_epoch(8, 21)
    del loader


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_is_always_the_same(server: Server, workers: int) -> None:
    """Also after more loops than a run has epochs, as one for each epoch and one before."""
    data = dataset(server, shuffle=None, epochs=2)
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    for _ in range(3):
        assert data.state_dict()["epoch"] == data.state_dict()["samples"] == 0
        assert rows(loader) == expected(server, 0, shuffle=None)
    assert len(rows(islice(loader, 3))) == 3
    assert (data.epoch, data.state_dict()["samples"]) == (0, 300)
    data.set_epoch(1)
    assert data.epoch == 1
    # No split is the one for training.
    data = dataset(server, split=None, shuffle=None, batch_size=2000)
    assert len(rows(data)) == 5 and data.epoch == 1


def test_an_evaluation_after_one_that_failed_is_whole(server: Server, start_server) -> None:  # type: ignore[no-untyped-def]
    broken = start_server()
    data = EpochDataset([broken.url], "shapes", as_dict=True, retry_seconds=0, split="test", batch_size=100)
    with pytest.raises(PbaError):
        for _ in data:
            broken.kill()
    data.client._access.addresses[:] = Loader(server.url, "shapes").client._access.addresses
    assert rows(data) == expected(server, 0, shuffle=None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", WORKERS, ids=str)
def test_a_checkpoint_continues_at_the_next_batch(server: Server, kind, workers: dict) -> None:  # type: ignore[no-untyped-def]
    everything = [expected(server, epoch) for epoch in range(3)]
    data = dataset(server)
    loader = kind(data, batch_size=None, **workers)
    states = {(0, 0): data.state_dict()}
    for epoch in range(2):
        loop = iter(loader)
        for taken, _ in enumerate(loop, 1):
            assert data.loader.state_dict() == data.state_dict()
            if taken in (1, 2, 7, 20):
                states[epoch, taken] = data.state_dict()
            if (epoch, taken) == (1, 9):
                break
        # After the loop as in it.
        states[epoch, taken, "after"] = data.state_dict()
    read_out(loop)
    del loop, loader
    if "multiprocessing_context" in workers:
        # Each of their workers imports torch, which takes seconds.
        states = {place: states[place] for place in [(1, 7), (1, 9, "after")]}
    for (epoch, taken, *_), state in states.items():
        state = json.loads(json.dumps(state))
        assert state["epoch"] == (epoch if taken < 20 else epoch + 1)
        other = dataset(server)
        other_loader = kind(other, batch_size=None, **workers)
        other.load_state_dict(state)
        assert other.state_dict() == state
        if taken < 20:
            assert rows(other_loader) == everything[epoch][taken:]
        loop = iter(other_loader)
        assert rows(islice(loop, 2)) == everything[epoch + 1][:2]
        read_out(loop)
        del loop, other_loader


def test_states_of_a_stateful_loader(server: Server) -> None:
    """With another number of workers, too."""
    data = dataset(server)
    loader = StatefulDataLoader(data, batch_size=None, num_workers=2)
    assert len(rows(loader)) == 20
    for taken, _ in enumerate(loader, 1):
        if taken == 5:
            state = json.loads(json.dumps(loader.state_dict()))
    for workers in (0, 2, 3):
        other = StatefulDataLoader(dataset(server), batch_size=None, num_workers=workers)
        other.load_state_dict(state)
        assert rows(other) == expected(server, 1)[5:]
        assert rows(other) == expected(server, 2)
    with pytest.raises(ValueError, match="no state of a loader of an EpochDataset"):
        other.load_state_dict({"_num_yielded": 3})


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (4, 2), (2, 3)])
def test_one_checkpoint_serves_other_ranks(server: Server, before: int, after: int, drop_last: bool) -> None:
    """That of rank 0, loaded in every rank of a job of another size, with batches of another size."""
    whole = {
        index: image
        for indices, images in expected(server, 1)
        for index, image in zip(indices, np.frombuffer(images, np.uint8).reshape(-1, 32, 32, 3))
    }
    seen: dict = {}
    states = []

    def read(data: EpochDataset, batches: int) -> None:
        for batch in islice(data, batches):
            for index, image in zip(batch["index"].tolist(), batch["image"].numpy()):
                assert index not in seen, "a sample was sent twice"
                seen[index] = image

    for rank in range(before):
        data = dataset(server, rank=rank, world_size=before, batch_size=70, drop_last=drop_last)
        data.set_epoch(1)
        read(data, 3)
        states.append(data.state_dict())
    assert all(state == states[0] for state in states) and states[0]["samples"] == before * 70 * 3
    for rank in range(after):
        data = dataset(server, rank=rank, world_size=after, batch_size=90, drop_last=drop_last)
        data.load_state_dict(states[0])
        read(data, 1)
        # And once more, from there.
        state = data.state_dict()
        again = dataset(server, rank=rank, world_size=after, batch_size=90, drop_last=drop_last)
        again.load_state_dict(state)
        read(again, 1000)
        assert again.state_dict()["epoch"] == 2
    left = (2000 - before * 210) % (after * 90) if drop_last else 0
    assert len(seen) == 2000 - left
    assert all((whole[index] == image).all() for index, image in seen.items())


def test_a_loop_that_was_left_is_told_of(server: Server) -> None:
    data = dataset(server)
    rows(islice(data, 3))
    assert data.state_dict()["samples"] == 300
    with pytest.warns(PbaWarning, match="a loop over epoch 0 was left after 3 of 20 batches, and now epoch 1 is read"):
        next(iter(DataLoader(data, batch_size=None)))
    # What was chosen is no accident, nor is what failed.
    data.set_epoch(4)
    next(iter(data))
    data.load_state_dict(data.state_dict())
    assert rows(data) == expected(server, 4, 1)
    with pytest.warns(PbaWarning, match="has no batch: there are too few samples"):
        rows(dataset(server, batch_size=3000, drop_last=True))
    # Side by side, neither is.
    loader = DataLoader(dataset(server), batch_size=None)
    assert all(first["index"].equal(second["index"]) for first, second in zip(loader, loader))


class Around(EpochDataset):
    """As people extend a dataset."""

    def __iter__(self):  # type: ignore[no-untyped-def]
        for batch in super().__iter__():
            yield {**batch, "more": batch["label"] + 1}


class Half(EpochDataset):
    def __iter__(self):  # type: ignore[no-untyped-def]
        return islice(super().__iter__(), 0, None, 2)


class Twice(EpochDataset):
    def __iter__(self):  # type: ignore[no-untyped-def]
        return (half for batch in super().__iter__() for half in (batch, batch))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_subclass_yields_one_item_for_each_batch(server: Server, workers: int) -> None:
    data = Half(server.url, "shapes", **OPTIONS)
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    assert sum(1 for _ in loader) == 10 and data.state_dict()["epoch"] == 0
    with pytest.warns(PbaWarning, match="a loop over epoch 0 was left after 10 of 20 batches"):
        next(iter(loader))
    data = Twice(server.url, "shapes", **OPTIONS)
    with pytest.raises(PbaError, match="more than 20 items came out .* one item for each batch"):
        list(DataLoader(data, batch_size=None, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_without_a_batch_is_none(server: Server, workers: int) -> None:
    """Frameworks make iterators to look at them."""
    for data in (dataset(server), Around(server.url, "shapes", **OPTIONS, as_dict=True)):
        for loader in (DataLoader(data, batch_size=None, num_workers=workers), prefetch(data, "cpu"), data):
            data.set_epoch(0)
            iter(loader)
            iter(loader)
            assert data.epoch == 0
            assert [batch["index"].tolist() for batch in loader] == [indices for indices, _ in expected(server, 0)]
            assert data.epoch == 1
        data.set_epoch(2)
        rows(islice(data, 3))
        state = data.state_dict()
        other = dataset(server)
        other.load_state_dict(state)
        iter(DataLoader(other, batch_size=None, num_workers=workers))
        iter(other)
        assert other.state_dict() == state and rows(other) == expected(server, 2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_position_that_is_chosen_after_an_iterator_was_made(server: Server, kind) -> None:  # type: ignore[no-untyped-def]
    other = dataset(server)
    other.set_epoch(2, start=3)
    state = other.state_dict()
    for make in (lambda data: data, lambda data: kind(data, batch_size=None), lambda data: prefetch(data, "cpu")):
        data = dataset(server)
        loop = iter(make(data))
        data.load_state_dict(state)
        taken = [next(loop)["index"].tolist(), *(batch["index"].tolist() for batch in loop)]
        assert taken == [indices for indices, _ in expected(server, 2, 3)] and data.epoch == 3
        for epoch in (5, 4):
            loop = iter(make(data))
            data.set_epoch(epoch)
            assert next(loop)["index"].tolist() == expected(server, epoch)[0][0]
            assert data.state_dict()["epoch"] == epoch and data.epoch == epoch + 1
            data.set_epoch(0)
    # Workers are reading by then.
    data = dataset(server)
    loop = iter(kind(data, batch_size=None, num_workers=1))
    data.load_state_dict(state)
    with pytest.raises(PbaError, match="make the iterator after load_state_dict"):
        next(loop)
    assert data.state_dict() == state


def test_a_loop_whose_workers_read_another_is_at_its_end(server: Server) -> None:
    """It would get batches of that one."""
    data = dataset(server)
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    first = iter(loader)
    next(first)
    data.set_epoch(1)
    second = iter(loader)
    taken = [next(second)]
    with pytest.raises(PbaError, match="this loop was left: the workers of its DataLoader, which persist"):
        next(first)
    assert rows([*taken, *second]) == expected(server, 1) and data.epoch == 2


def test_an_evaluation_that_is_copied_is_whole(server: Server) -> None:
    data = dataset(server, shuffle=None)
    next(iter(data))
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert rows(other) == expected(server, 0, shuffle=None)


def test_copies_go_on_where_the_dataset_is(server: Server) -> None:
    data = dataset(server)
    rows(islice(data, 3))
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert other.state_dict() == data.state_dict()
        # As at the top of a loop over epochs.
        other.set_epoch(other.epoch)
        assert rows(other) == expected(server, 0, 3)
    copy.copy(iter(data))


def test_ranks_with_fewer_batches_end_their_epochs_too(server: Server) -> None:
    """2000 samples for 3 ranks, 333 in a batch: the last two are those of ranks 0 and 1."""
    for rank, batches in enumerate((3, 3, 2)):
        data = dataset(server, rank=rank, world_size=3, batch_size=333)
        assert len(rows(data)) == batches
        assert (data.state_dict()["epoch"], data.state_dict()["samples"]) == (1, 0)


def test_a_position_is_not_lost(server: Server) -> None:
    data = dataset(server)
    data.set_epoch(1)
    for _ in islice(data, 5):
        pass
    state = data.state_dict()
    data = dataset(server)
    data.load_state_dict(state)
    with pytest.raises(ValueError, match="a position in epoch 1 was loaded, and would be lost in epoch 0"):
        data.set_epoch(0)
    data.set_epoch(1)
    data.set_epoch(1)
    assert rows(data) == expected(server, 1, 5)
    data.load_state_dict(state)
    data.set_epoch(0, start=0)
    assert rows(data) == expected(server, 0)
    for epoch in (-1, "2", 1.5, True, None, 2**63):
        with pytest.raises(ValueError, match="epoch is .*; expected an integer of 0 to"):
            data.set_epoch(epoch)
    data.set_epoch(np.int64(3))
    json.dumps(data.state_dict())
    with pytest.raises(ValueError, match="seed was '0' and is '1'"):
        dataset(server, seed=1).load_state_dict(state)


def test_a_loop_that_failed_is_continued(server: Server, start_server) -> None:  # type: ignore[no-untyped-def]
    """Not by the next epoch, as if it had been read."""
    broken = start_server()
    data = EpochDataset([broken.url], "shapes", as_dict=True, retry_seconds=0, **OPTIONS)
    taken = []
    with pytest.raises(PbaError):
        for batch in data:
            taken.append(batch)
            broken.kill()
    data.client._access.addresses[:] = Loader(server.url, "shapes").client._access.addresses
    assert data.epoch == 0 and 0 < len(taken) < 20
    data.set_epoch(0)
    assert rows(taken) + rows(data) == expected(server, 0)
    assert data.epoch == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_that_failed_ends_with_its_error(server: Server, workers: int) -> None:
    """What asks again does not take it for the end of the epoch, and gets no batch of another worker."""
    data = dataset(server)

    def broken(batch):  # type: ignore[no-untyped-def]
        if batch["index"].tolist() == expected(server, 0)[3][0]:
            raise ConnectionError("nothing comes")
        return batch

    loop = iter(DataLoader(data, batch_size=None, num_workers=workers, collate_fn=broken))
    taken = [next(loop) for _ in range(3)]
    with pytest.raises(ConnectionError):
        next(loop)
    state = data.state_dict()
    for _ in range(2):
        with pytest.raises(PbaError, match="this loop has failed, and the rest of its epoch is read by another one"):
            next(loop)
    assert data.state_dict() == state and (data.epoch, state["samples"]) == (0, 300)
    del loop
    assert rows(taken) + rows(data) == expected(server, 0)


# PyTorch's handler of signals may raise once more while its loader ends the other worker.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function _MultiProcessingDataLoaderIter.__del__")
def test_a_worker_that_is_killed(server: Server) -> None:
    """As by the kernel, when memory is short: an error, and the next loop goes on there."""
    data = dataset(server)
    loop = iter(DataLoader(data, batch_size=None, num_workers=2))
    taken = [next(loop) for _ in range(3)]
    loop._workers[0].kill()
    # PyTorch's own error, or that of a batch which the worker was handing over.
    with pytest.raises((RuntimeError, ConnectionError, EOFError)):
        while True:
            taken.append(next(loop))
    del loop
    assert data.epoch == 0 and data.state_dict()["samples"] == 100 * len(taken)
    assert rows(taken) + rows(data) == expected(server, 0)


def test_threads_have_loops_of_their_own(server: Server) -> None:
    """Two that read one dataset, one of which begins last and ends last."""
    data = dataset(server)
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def slow_first(batch):  # type: ignore[no-untyped-def]
        first_is_in.set()
        assert second_is_in.wait(60)
        return batch

    def slow_second(batch):  # type: ignore[no-untyped-def]
        second_is_in.set()
        assert first_is_out.wait(60)
        return batch

    def read_first() -> None:
        next(iter(DataLoader(data, batch_size=None, collate_fn=slow_first)))
        first_is_out.set()

    thread = threading.Thread(target=read_first)
    thread.start()
    assert first_is_in.wait(60)
    next(iter(DataLoader(data, batch_size=None, collate_fn=slow_second)))
    thread.join()
    data.set_epoch(2)
    # None of this is taken for a part of theirs.
    for epoch in (2, 3):
        assert rows(data) == expected(server, epoch) and data.epoch == epoch + 1


class Wrapped(IterableDataset):
    def __init__(self, data: EpochDataset) -> None:
        self.data = data

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self.data


class Forwarding(Wrapped):
    def state_dict(self) -> dict:
        return self.data.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.data.load_state_dict(state)


def test_a_stateful_loader_of_another_dataset_keeps_the_position(server: Server) -> None:
    with pytest.raises(PbaError, match="of a Wrapped around an EpochDataset would save no epoch"):
        next(iter(StatefulDataLoader(Wrapped(dataset(server)), batch_size=None)))
    loader = StatefulDataLoader(Forwarding(dataset(server)), batch_size=None)
    rows(loader)
    assert rows(islice(loader, 5)) == expected(server, 1)[:5]
    state = loader.state_dict()
    loader = StatefulDataLoader(Forwarding(dataset(server)), batch_size=None)
    loader.load_state_dict(state)
    assert rows(loader) == expected(server, 1, 5)


def test_a_dataset_within_another(server: Server) -> None:
    whole = dataset(server)
    assert rows(DataLoader(ChainDataset([whole]), batch_size=None)) == expected(server, 0)
    assert rows(DataLoader(ChainDataset([whole]), batch_size=None)) == expected(server, 1)
    with pytest.raises(PbaError, match="pass the EpochDataset itself"):
        rows(DataLoader(ChainDataset([whole]), batch_size=None, num_workers=2))
