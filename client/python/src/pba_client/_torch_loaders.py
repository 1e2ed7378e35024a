"""Counts what a ``DataLoader`` hands out of an ``EpochDataset``.

A dataset in the process that loops is not told when a loop begins, nor how many batches it has taken, once there are
workers: these have copies of it, and read ahead. So ``iter()`` of torch's DataLoader and of torchdata's
StatefulDataLoader, where their dataset is one of ours, tells the dataset first, and returns an iterator that counts.
Other datasets notice nothing.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable, Dict, Generic, Iterator, Optional, Protocol, Tuple, TypeVar

import torch
from torch.utils.data import DataLoader

from ._errors import PbaError
from ._loader import Position, warn

_T = TypeVar("_T")
# In the state of a StatefulDataLoader.
STATE_KEY = "pba_client"


@dataclass
class Loop:
    """One loop over an epoch, or over the rest of one. The process that loops begins it and counts.

    Attributes:
        position: where it begins.
        batches: how many batches it has.
        channel: tells workers that persist of a later loop.
        handed_out: batches that came out of it so far.
        held_back: batches that came out, and that whoever loops has not given on yet.
        ahead: batches that are on their way to a device, and not taken yet.
        is_ended: whether its end came out, which may be ahead, too.
        is_failed: whether it ended with an error.
    """

    position: Position
    rank: int
    world_size: int
    batches: int
    channel: Optional[torch.Tensor] = None
    handed_out: int = 0
    held_back: int = 0
    ahead: int = 0
    is_ended: bool = False
    is_failed: bool = False

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
        return cls(Position(epoch, samples), rank, world_size, batches, channel)


class Told(Protocol):
    """A dataset that is told of its loops."""

    _begun: Optional[Loop]
    _counting: Tuple[int, Optional[Loop]]

    def _begin(self) -> Loop: ...

    def _started(self, loop: Loop) -> None: ...

    def _failed(self, loop: Loop) -> None: ...


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
        loop, dataset = self._loop, self._dataset
        if self._looks_ahead is None:
            self._looks_ahead = _looks_ahead()
        outer, dataset._counting = dataset._counting, (threading.get_ident(), loop)
        try:
            batch = next(self._batches)
        except StopIteration:
            if not loop.is_ended and loop.handed_out == 0:
                dataset._started(loop)
            loop.held_back, loop.is_ended = 0, True
            raise
        except BaseException:
            dataset._failed(loop)
            raise
        finally:
            dataset._counting = outer
        if loop.handed_out == 0:
            dataset._started(loop)
        loop.handed_out += 1
        loop.held_back = int(self._looks_ahead)
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


# Of each loader whose workers persist.
_CHANNELS: weakref.WeakKeyDictionary[Any, torch.Tensor] = weakref.WeakKeyDictionary()


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
    if loader.num_workers > 0 and loader.persistent_workers:
        if loader not in _CHANNELS:
            _CHANNELS[loader] = torch.zeros(5, dtype=torch.int64).share_memory_()
        begun.channel = _CHANNELS[loader]
        begun.send()
    # Copied into workers that start now, and looked for by iter(dataset) if there are none.
    dataset._begun = begun
    try:
        batches = original(loader)
    except Exception:
        dataset._failed(begun)
        raise
    finally:
        dataset._begun = None
    return Counted(batches, begun, dataset)


def _keep_state(kind: Any, ours: type) -> None:
    """Lets the state of a StatefulDataLoader be that of its dataset, whatever its workers are ahead."""
    state_dict, load_state_dict = kind.state_dict, kind.load_state_dict

    @functools.wraps(state_dict)
    def save(self: Any) -> Dict[str, Any]:
        return {STATE_KEY: self.dataset.state_dict()} if isinstance(self.dataset, ours) else state_dict(self)

    @functools.wraps(load_state_dict)
    def load(self: Any, state: Dict[str, Any]) -> None:
        if not isinstance(self.dataset, ours):
            load_state_dict(self, state)
        elif STATE_KEY in state:
            self.dataset.load_state_dict(state[STATE_KEY])
        else:
            raise ValueError(f"this is no state of a loader of an EpochDataset: it has no {STATE_KEY!r}")

    kind.state_dict, kind.load_state_dict = save, load


# What holds a batch back so that it knows which is the last, by module.
_LOOKING_AHEAD = {
    "accelerate.data_loader": ("DataLoaderShard", "DataLoaderDispatcher"),
    "ray.train.torch.train_loop_utils": ("_WrappedDataLoader",),
    # Where they are not told how many batches there are.
    "lightning.pytorch.loops.fetchers": ("_PrefetchDataFetcher",),
    "pytorch_lightning.loops.fetchers": ("_PrefetchDataFetcher",),
}
# What deals batches out over ranks that were dealt out already, in accelerate.data_loader.
_SHARDING_AGAIN = ("DataLoaderDispatcher", "IterableDatasetShard")


def _callers(module: str) -> Iterator[Any]:
    """The objects of a module in whose methods we are."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == module and "self" in frame.f_locals:
            yield frame.f_locals["self"]
        frame = frame.f_back  # type: ignore[assignment]


def is_count_of_accelerate() -> bool:
    """Whether Accelerate sets the epoch as it begins a loop, by its own count."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "accelerate.data_loader" and frame.f_code.co_name == "__iter__":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _looks_ahead() -> bool:
    return any(
        type(caller).__name__ in names and getattr(caller, "length", None) is None
        for module, names in _LOOKING_AHEAD.items()
        for caller in _callers(module)
    )


def warn_of_another_count(position: Position) -> None:
    """Warns where a framework goes on elsewhere in its run than a loop that begins at this position."""
    skipped = max((getattr(caller, "skip_batches", 0) for caller in _callers("accelerate.data_loader")), default=0)
    if skipped and position.samples:
        warn(
            f"{skipped} batches are skipped after a position that was loaded, which is after {position.samples} samples: "
            "they are never read. Leave one of the two out, in Transformers by ignore_data_skip=True"
        )
    for name, epoch in _counts():
        if epoch != position.epoch:
            warn(
                f"{name} is at epoch {epoch}, and its batches are those of epoch {position.epoch}: keep the state_dict() of "
                "the EpochDataset in its checkpoints, and load it with them; or call set_epoch()"
            )
            return


def _counts() -> Iterator[Tuple[str, int]]:
    """Frameworks that are in a loop over epochs, and the epoch that each is at."""
    for module in ("lightning.pytorch.loops.fit_loop", "pytorch_lightning.loops.fit_loop"):
        for caller in _callers(module):
            if isinstance(getattr(getattr(caller, "trainer", None), "current_epoch", None), int):
                yield "Lightning", caller.trainer.current_epoch
    for caller in _callers("transformers.trainer"):
        epoch = getattr(getattr(caller, "state", None), "epoch", None)
        if isinstance(epoch, (int, float)):
            # A little less than a whole number is that number, rounded down on the way.
            yield "Transformers' Trainer", int(epoch + 1e-6)


def refuse_second_sharding(world_size: int, wrapper: Any = None) -> None:
    """Refuses a loop whose batches Accelerate would deal out over the ranks once more, with a ``PbaError``.

    Args:
        wrapper: a dataset around the ``EpochDataset``.
    """
    if "accelerate" not in sys.modules or world_size == 1:
        return
    for caller in [wrapper, *_callers("accelerate.data_loader")]:
        if type(caller).__name__ in _SHARDING_AGAIN:
            raise PbaError(
                f"Accelerate's prepare() would deal out the batches of each of {world_size} ranks over the ranks once "
                "more, and most of each epoch would never be seen: do not pass this DataLoader to prepare(). Its "
                "EpochDataset reads the part of its rank; move batches to accelerator.device in the loop"
            )
