"""Counts what a ``DataLoader`` hands out of an ``EpochDataset``.

A dataset in the process that loops is not told when a loop begins, nor how many batches it has taken, once there are
workers: these have copies of it, and read ahead. So ``iter()`` of torch's DataLoader and of torchdata's
StatefulDataLoader, where their dataset is one of ours, tells the dataset first, and returns an iterator that counts.
Other datasets notice nothing.
"""

from __future__ import annotations

import functools
import threading
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Callable, Dict, Generic, Iterator, List, Optional, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

from ._errors import PbaError
from ._loader import Position
from ._torch_frameworks import is_state_of_accelerate, looks_ahead, refuse_second_sharding

_T = TypeVar("_T")
# In the state of a StatefulDataLoader.
STATE_KEY = "pba_client"
FAILED = "this loop has failed, and the rest of its epoch is read by another one, which goes on where it was"


@dataclass
class Loop:
    """One loop over an epoch, or over the rest of one. The process that loops begins it and counts.

    Attributes:
        position: where it begins.
        batches: how many batches it has.
        choice: number of the last choice of a position before it.
        has_workers: whether workers have been told of it.
        channel: tells workers that persist of a later loop.
        handed_out: batches that came out of it so far.
        held_back: batches that came out, and that whoever loops has not given on yet.
        ahead: batches that are on their way to a device, and not taken yet.
        is_ended: whether its end came out, which may be ahead, too.
        is_failed: whether it ended with an error: the next loop goes on where it was.
        is_compared: whether its position was compared with the place of a framework.
        is_superseded: whether its workers, which persist, read another loop.
    """

    position: Position
    rank: int
    world_size: int
    batches: int
    choice: int = 0
    has_workers: bool = False
    channel: Optional[torch.Tensor] = None
    handed_out: int = 0
    held_back: int = 0
    ahead: int = 0
    is_ended: bool = False
    is_failed: bool = False
    is_compared: bool = False
    is_superseded: bool = False

    @property
    def is_over(self) -> bool:
        """Whether all of it was taken, and it has no more."""
        return self.is_ended and self.ahead == 0

    @property
    def is_left(self) -> bool:
        """Whether its rest will not be read."""
        return not self.is_failed and self.taken < self.batches

    @property
    def taken(self) -> int:
        return max(0, self.handed_out - self.held_back - self.ahead)

    def send(self) -> None:
        """Writes what a worker needs into the channel."""
        assert self.channel is not None
        self.channel.copy_(torch.tensor([*self.position, self.rank, self.world_size, self.batches]))

    @classmethod
    def received(cls, channel: torch.Tensor) -> Loop:
        epoch, samples, rank, world_size, batches = channel.tolist()
        return cls(Position(epoch, samples), rank, world_size, batches, channel=channel)


class ThreadState(threading.local):
    """What concerns a dataset in one thread.

    Attributes:
        begun: a loop that a DataLoader begins: its workers find it here. Those that persist are told of later ones.
        counting: the loop that is asked for its next batch just now.
    """

    begun: Optional[Loop] = None
    counting: Optional[Loop] = None


class Told(Protocol):
    """A dataset that is told of its loops."""

    _thread: ThreadState
    _choice: int

    def _begin(self) -> Loop: ...

    def _started(self, loop: Loop) -> None: ...

    def _compare(self, loop: Loop) -> bool: ...


class _Ahead(threading.local):
    # The loops that batches come out of, for what fetches them ahead in this thread.
    loops: Optional[List[Loop]] = None


_AHEAD = _Ahead()


@contextmanager
def counted_loops() -> Iterator[List[Loop]]:
    """The loops out of which batches come meanwhile, one for each batch, whatever is around their dataset."""
    outer, _AHEAD.loops = _AHEAD.loops, []
    try:
        yield _AHEAD.loops
    finally:
        _AHEAD.loops = outer


class Counted(Generic[_T], Iterator[_T]):
    """The batches of a loop, counted."""

    def __init__(self, batches: Iterator[_T], loop: Loop, dataset: Told) -> None:
        self._batches = batches
        self._loop = loop
        self._dataset = dataset
        # Whether what loops holds a batch back, so that it knows which is the last. Asked with the first batch: until
        # then Lightning does not know how many there are.
        self._looks_ahead: Optional[bool] = None

    def __next__(self) -> _T:
        loop, thread = self._loop, self._dataset._thread
        if loop.is_failed:
            # Its workers may have more, but not the batch that failed; and a generator would seem to be at its end.
            raise PbaError(FAILED)
        if loop.is_superseded and not loop.is_ended:
            raise PbaError("this loop was left: the workers of its DataLoader, which persist, read another one by now")
        if loop.handed_out == 0 and not loop.is_ended and loop.choice != self._dataset._choice:
            self._begin_elsewhere()
        if self._looks_ahead is None:
            self._looks_ahead = looks_ahead()
        outer, thread.counting = thread.counting, loop
        try:
            batch = next(self._batches)
        except StopIteration:
            if not loop.is_ended and loop.handed_out == 0:
                self._dataset._started(loop)
            # One that yields fewer has left the rest.
            loop.held_back, loop.is_ended = 0, loop.handed_out == loop.batches
            raise
        except BaseException:
            loop.is_failed = True
            raise
        finally:
            thread.counting = outer
        if loop.handed_out == loop.batches:
            raise PbaError(
                f"more than {loop.batches} items came out of a loop of {loop.batches} batches, so that its position is "
                "not known: a subclass of EpochDataset has to yield one item for each batch"
            )
        if loop.handed_out == 0:
            self._dataset._started(loop)
        if not loop.is_compared:
            loop.is_compared = self._dataset._compare(loop)
        loop.handed_out += 1
        loop.held_back = int(self._looks_ahead)
        if _AHEAD.loops is not None:
            _AHEAD.loops.append(loop)
        return batch

    def _begin_elsewhere(self) -> None:
        """Another position was chosen since the iterator was made."""
        loop = self._loop
        if loop.has_workers:
            raise PbaError(
                "another position was chosen after this iterator was made, and its workers have begun at the one before: "
                "make the iterator after load_state_dict() and set_epoch()"
            )
        begun = self._dataset._begin()
        loop.position, loop.batches, loop.choice = begun.position, begun.batches, begun.choice
        loop.rank, loop.world_size = begun.rank, begun.world_size

    def __getattr__(self, name: str) -> Any:
        if name == "_batches":
            # One that is being copied has none yet.
            raise AttributeError(name)
        return getattr(self._batches, name)


# Of each loader whose workers persist: the channel to them, and their latest loop.
_CHANNELS: weakref.WeakKeyDictionary[Any, torch.Tensor] = weakref.WeakKeyDictionary()
_LATEST: weakref.WeakKeyDictionary[Any, Loop] = weakref.WeakKeyDictionary()


def watch(ours: type) -> None:
    """Has loaders tell datasets of this type of their loops."""
    _watch(DataLoader, ours)
    with suppress(ImportError):
        from torchdata.stateful_dataloader import StatefulDataLoader

        if _watch(StatefulDataLoader, ours):
            _keep_state(StatefulDataLoader, ours)


def _watch(kind: Any, ours: type) -> bool:
    original: Callable[[Any], Iterator[Any]] = kind.__iter__
    if getattr(original, "_is_watched", False):
        return False

    @functools.wraps(original)
    def begin(self: Any) -> Iterator[Any]:
        if isinstance(self.dataset, ours):
            return _begin(self, self.dataset, original)
        if isinstance(getattr(self.dataset, "dataset", None), ours):
            refuse_second_sharding(self.dataset.dataset._for_rank().world_size, self.dataset)
        return original(self)

    begin._is_watched = True  # type: ignore[attr-defined]
    kind.__iter__ = begin
    return True


def _begin(loader: Any, dataset: Any, original: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    if loader.batch_sampler is not None:
        raise ValueError(
            f"the DataLoader has batch_size={loader.batch_size}, and would make batches of batches: an EpochDataset "
            f"yields batches already, of batch_size={dataset._batch_size} as it was given. Pass batch_size=None to "
            "the DataLoader"
        )
    if loader.num_workers > 1 and not getattr(loader, "in_order", True):
        raise ValueError(
            "the DataLoader has in_order=False, so that batches come in no order, and none of them is a position to go on "
            "from; leave it out"
        )
    begun = dataset._begin()
    begun.has_workers = loader.num_workers > 0
    if loader.num_workers > 0 and loader.persistent_workers:
        if loader in _LATEST:
            _LATEST[loader].is_superseded = True
        _LATEST[loader] = begun
        if loader not in _CHANNELS:
            _CHANNELS[loader] = torch.zeros(5, dtype=torch.int64).share_memory_()
        begun.channel = _CHANNELS[loader]
        begun.send()
    # Copied into workers that start now, and looked for by iter(dataset) if there are none.
    dataset._thread.begun = begun
    try:
        batches = original(loader)
    finally:
        dataset._thread.begun = None
    return Counted(batches, begun, dataset)


def _keep_state(kind: Any, ours: type) -> None:
    """Lets the state of a StatefulDataLoader be that of its dataset, whatever its workers are ahead."""
    state_dict, load_state_dict = kind.state_dict, kind.load_state_dict

    @functools.wraps(state_dict)
    def save(self: Any) -> Dict[str, Any]:
        if not isinstance(self.dataset, ours):
            return state_dict(self)
        return {STATE_KEY: self.dataset._state(is_state_of_accelerate())}

    @functools.wraps(load_state_dict)
    def load(self: Any, state: Dict[str, Any]) -> None:
        if not isinstance(self.dataset, ours):
            load_state_dict(self, state)
        elif STATE_KEY in state:
            self.dataset.load_state_dict(state[STATE_KEY])
        else:
            raise ValueError(f"this is no state of a loader of an EpochDataset: it has no {STATE_KEY!r}")

    kind.state_dict, kind.load_state_dict = save, load
