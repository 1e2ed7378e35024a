"""What frameworks do with the batches of an ``EpochDataset``, which none of them tells: it is seen from who asks for them.

Lightning, Accelerate, Ray Train and Hugging Face's Trainer deal out, hold back or skip batches, or have a count of epochs
of their own. They are known by the names of their modules, classes and variables.
"""

from __future__ import annotations

import sys
from itertools import takewhile
from types import FrameType
from typing import Any, Iterator, NamedTuple, Optional, Tuple

from ._errors import PbaError
from ._loader import Position, warn

_ACCELERATE = "accelerate.data_loader"
_TRANSFORMERS = "transformers.trainer"
_LIGHTNING = {
    path.rpartition(".")[2]: (f"lightning.pytorch.{path}", f"pytorch_lightning.{path}")
    for path in ("loops.fit_loop", "loops.evaluation_loop", "loops.fetchers", "utilities.combined_loader")
}
# What holds a batch back so that it knows which is the last, by module.
_LOOKING_AHEAD = {
    _ACCELERATE: ("DataLoaderShard", "DataLoaderDispatcher"),
    "ray.train.torch.train_loop_utils": ("_WrappedDataLoader",),
    # Where they are not told how many batches there are.
    "lightning.pytorch.loops.fetchers": ("_PrefetchDataFetcher",),
    "pytorch_lightning.loops.fetchers": ("_PrefetchDataFetcher",),
}
# What deals batches out over ranks that were dealt out already, in accelerate.data_loader.
_SHARDING_AGAIN = ("DataLoaderDispatcher", "IterableDatasetShard")


def _frames() -> Iterator[FrameType]:
    """The functions that we are in, the innermost first.

    Only those of frameworks may be asked for ``f_locals``: before Python 3.13 it keeps what a function's variables held.
    """
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _name_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _callers(modules: Tuple[str, ...]) -> Iterator[Any]:
    """The objects of modules in whose methods we are."""
    return (frame.f_locals["self"] for frame in _frames() if _name_of(frame) in modules and "self" in frame.f_locals)


def is_count_of_accelerate() -> bool:
    """Whether Accelerate sets the epoch of a dataset as it begins a loop, by its own count."""
    # In its __iter__, by its set_epoch; that of the dataset may be a subclass's.
    ours = (__name__, f"{__package__}.torch")
    calls = [(_name_of(frame), frame.f_code.co_name) for frame in _frames() if _name_of(frame) not in ours]
    setters = list(takewhile(lambda call: call[1] == "set_epoch", calls))
    beginning = [(_ACCELERATE, "set_epoch"), (_ACCELERATE, "__iter__")]
    return calls[len(setters) - 1 : len(setters) + 1] == beginning


def is_state_of_accelerate() -> bool:
    """Whether Accelerate asks for a state, of when the batch that it holds back will have been given on."""
    calls = [(_name_of(frame), frame.f_code.co_name) for frame in _frames()]
    return (_ACCELERATE, "_update_state_dict") in calls


def refuse_lost_state() -> None:
    """Refuses a loop whose StatefulDataLoader cannot know where it is, with a ``PbaError``."""
    for caller in _callers(("torchdata.stateful_dataloader.stateful_dataloader",)):
        around = getattr(caller, "_dataset", None)
        if around is not None and not (hasattr(around, "state_dict") and hasattr(around, "load_state_dict")):
            raise PbaError(
                f"a StatefulDataLoader of a {type(around).__name__} around an EpochDataset would save no epoch: give it "
                "state_dict() and load_state_dict(state) that call those of the EpochDataset, or use a DataLoader"
            )


def looks_ahead() -> bool:
    """Whether what asks for a batch holds one back, so that it knows which is the last."""
    return any(
        type(caller).__name__ in names and getattr(caller, "length", None) is None
        for module, names in _LOOKING_AHEAD.items()
        for caller in _callers((module,))
    )


class _Place(NamedTuple):
    """Where a framework is in its run."""

    framework: str
    epoch: int
    # Whether it goes on in the middle of it.
    is_resumed: bool


def warn_of_another_place(position: Position) -> bool:
    """Warns where a framework is elsewhere in its run than a loop that begins at this position, and of which it gets a
    batch. False when that cannot be told yet."""
    if any(_name_of(frame) in _LIGHTNING["fit_loop"] and frame.f_code.co_name == "setup_data" for frame in _frames()):
        # Where it looks ahead, it does so before it knows at which epoch it resumes.
        return False
    skipped = max((getattr(caller, "skip_batches", 0) for caller in _callers((_ACCELERATE,))), default=0)
    if skipped and position.samples:
        warn(
            f"{skipped} batches are skipped after a position that was loaded, which is after {position.samples} samples: "
            "they are never read. Leave one of the two out, in Transformers by ignore_data_skip=True"
        )
    place = _place()
    if place is None:
        return True
    keep = "keep the state_dict() of the EpochDataset in its checkpoints, and load it with them"
    if place.epoch != position.epoch:
        warn(
            f"{place.framework} is at epoch {place.epoch}, and its batches are those of epoch {position.epoch}: {keep}; "
            "or call set_epoch()"
        )
    elif place.is_resumed and position.samples == 0:
        warn(
            f"{place.framework} goes on in the middle of epoch {place.epoch}, and its batches are those of the beginning: "
            f"{keep}"
        )
    return True


def _place() -> Optional[_Place]:
    """Where the framework is that asks for a batch to train on."""
    for frame in _frames():
        module, function = _name_of(frame), frame.f_code.co_name
        if module in _LIGHTNING["evaluation_loop"] or (module, function) == (_TRANSFORMERS, "evaluation_loop"):
            # Not to train on.
            return None
        if module in _LIGHTNING["combined_loader"] and _is_cycle(frame.f_locals.get("self")):
            # Of several loaders, one begins again before the others end.
            return None
        if module in _LIGHTNING["fit_loop"]:
            trainer = frame.f_locals["self"].trainer
            steps = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            # A step that asks for batches itself has begun.
            own = any(type(caller).__name__ == "_DataFetcherWrapper" for caller in _callers(_LIGHTNING["fetchers"]))
            # Where it looks ahead, it counts later than it asks.
            return _Place("Lightning", trainer.current_epoch, steps > own and not looks_ahead())
        known = ("epoch", "epochs_trained", "num_update_steps_per_epoch")
        if module == _TRANSFORMERS and set(known) <= set(frame.f_locals):
            epoch, first, steps = (frame.f_locals[name] for name in known)
            # Unless it skips what was read before.
            trainer = frame.f_locals["self"]
            is_resumed = epoch == first and trainer.state.global_step % steps > 0 and trainer.args.ignore_data_skip
            return _Place("Transformers' Trainer", epoch, is_resumed)
    return None


def _is_cycle(caller: Any) -> bool:
    return type(caller).__name__ == "_MaxSizeCycle" and len(caller.iterables) > 1


def refuse_second_sharding(world_size: int, wrapper: Any = None) -> None:
    """Refuses a loop whose batches Accelerate would deal out over the ranks once more, with a ``PbaError``.

    Args:
        wrapper: a dataset around the ``EpochDataset``.
    """
    if "accelerate" not in sys.modules or world_size == 1:
        return
    for caller in [wrapper, *_callers((_ACCELERATE,))]:
        if type(caller).__name__ in _SHARDING_AGAIN:
            raise PbaError(
                f"Accelerate's prepare() would deal out the batches of each of {world_size} ranks over the ranks once "
                "more, and most of each epoch would never be seen: do not pass this DataLoader to prepare(). Its "
                "EpochDataset reads the part of its rank; move batches to accelerator.device in the loop"
            )
