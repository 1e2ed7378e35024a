"""The batches of a training run as a PyTorch ``IterableDataset``.

>>> from torch.utils.data import DataLoader  # doctest: +SKIP
>>> from pba_client.torch import EpochDataset  # doctest: +SKIP
>>> dataset = EpochDataset("http://127.0.0.1:8080", "shapes", "cifar10-pba", 200)  # doctest: +SKIP
>>> loader = DataLoader(dataset, batch_size=None)  # doctest: +SKIP
>>> for epoch in range(200):
...     for image, label in loader:  # doctest: +SKIP
...         ...

Needs torch, which the rest of the package does not.
"""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any, Dict, Iterable, Iterator, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from . import _torch_frameworks, _torch_loaders
from ._batch import Batch
from ._client import Client, check_switch
from ._epoch import Epoch
from ._errors import PbaError
from ._loader import EVALUATION_SPLITS, UNSCHEDULED, Loader, Position, check_epoch, warn
from ._progress import NUMBER_MAX
from ._ranks import rank_and_world_size
from ._request import Policy
from ._torch_loaders import Counted, Loop, ThreadState
from ._torch_prefetch import Normalization, Pair, Prefetch, Statistics, checked

__all__ = ["EpochDataset", "Pair", "prefetch", "tensors"]

_Tensors = Union[Pair, Dict[str, torch.Tensor]]


def tensors(batch: Batch) -> Dict[str, torch.Tensor]:
    """The arrays of a batch as tensors on the same memory: nothing is copied.

    Returns:
        ``image`` uint8 [N, H, W, 3], ``label`` int64 [N], and ``index`` int64 [N] (torch computes
        little with uint64, and no dataset has 2**63 samples).
    """
    return {
        "image": torch.from_numpy(batch.image),
        "label": torch.from_numpy(batch.label),
        "index": torch.from_numpy(batch.index.view("i8")),
    }


class EpochDataset(IterableDataset):
    """The epochs of a training run: each loop over it reads the next one, from epoch 0 on.

    A split for evaluation, ``val`` or ``test``, is the same in each loop, always of epoch 0, unless it is shuffled or has a
    schedule or policy.

    Pass it to a ``DataLoader`` or ``StatefulDataLoader`` with ``batch_size=None``, or loop over it directly. Workers
    share the batches of an epoch, which arrive in the same order for any number of them.

    ``state_dict()`` is the position after the batches that the loop has taken, and ``load_state_dict()`` continues
    there. It counts samples of all ranks, so that one checkpoint is right for every rank, and for other numbers of
    ranks or workers and other batch sizes.

    Each rank reads its part of the epoch. Which rank this is, is looked up when a loop begins: in
    ``torch.distributed`` where that is initialised, else in ``RANK`` and ``WORLD_SIZE``, else it is 0 of 1.

    Args:
        url, dataset, schedule, epochs, batch_size: as for ``pba_client.Loader``.
        rank, world_size: instead of those that are looked up, for example of a data-parallel group. Both, or neither.
        channels_first: yield float32 [N, 3, H, W], normalised by the dataset's mean and standard
            deviation, instead of uint8 [N, H, W, 3]. This costs a pass over the pixels; on a GPU
            it is cheaper there.
        as_dict: yield dictionaries with ``image``, ``label`` and ``index`` instead of a ``Pair`` of image and label.
        split, seed, ...: the other arguments of ``Loader``.

    Attributes:
        epoch: epoch that the next loop reads, 0-based; in a loop, that is the one after it.
        client, classes, mean, std: as of a ``Loader``.
        loader: a ``Loader`` of this rank, which tells what a ``Loader`` tells. Its state is that of this dataset, and it
            opens no epochs.

    Raises:
        RefusedError: when the server refuses the parameters.
        UnreachableError: when no server can be reached.
        ValueError: when ``rank`` is not one of ``world_size``, or ``channels_first`` or ``as_dict`` not True or False.
    """

    def __init__(
        self,
        url: Union[str, "os.PathLike[str]", Sequence[str], None] = None,
        dataset: Optional[str] = None,
        schedule: Optional[str] = None,
        epochs: Optional[int] = None,
        batch_size: int = 128,
        *,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
        channels_first: bool = False,
        as_dict: bool = False,
        split: Optional[str] = "train",
        seed: Optional[int] = 0,
        shuffle: Optional[bool] = None,
        drop_last: Optional[bool] = False,
        ablation: Optional[str] = None,
        policy: Optional[Policy] = None,
        base: Optional[str] = None,
        codec: Optional[str] = None,
        headspace: bool = False,
        token: Optional[str] = None,
        ca: Union[str, "os.PathLike[str]", None] = None,
        stall_seconds: float = 120.0,
        retry_seconds: float = 600.0,
        wait_seconds: float = 0.0,
        prefetch: Optional[int] = None,
        shared_memory: bool = True,
        checksums: Optional[bool] = None,
    ) -> None:
        super().__init__()
        channels_first = check_switch("channels_first", channels_first)
        as_dict = check_switch("as_dict", as_dict)
        if (rank is None) != (world_size is None):
            raise ValueError(f"rank is {rank!r} and world_size {world_size!r}; expected both, or neither")
        self._given_ranks = rank is not None
        self._loader = Loader(
            url,
            dataset,
            schedule,
            epochs,
            batch_size,
            rank=0 if rank is None else rank,
            world_size=1 if world_size is None else world_size,
            split=split,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            ablation=ablation,
            policy=policy,
            base=base,
            codec=codec,
            headspace=headspace,
            token=token,
            ca=ca,
            stall_seconds=stall_seconds,
            retry_seconds=retry_seconds,
            wait_seconds=wait_seconds,
            prefetch=prefetch,
            shared_memory=shared_memory,
            checksums=checksums,
        )
        self._batch_size = batch_size
        is_evaluation = split in EVALUATION_SPLITS and not shuffle and schedule in UNSCHEDULED and policy is None
        # From the end of an epoch to the one that follows.
        self._step = 0 if is_evaluation else 1
        self._channels_first = channels_first
        self._as_dict = as_dict
        # Where the next loop begins, and whether that was loaded, and must not be lost.
        self._next = Position(0, 0)
        self._is_loaded = False
        # The latest loop that had a batch, until another position is chosen.
        self._loop: Optional[Loop] = None
        # Counts the choices of a position, for iterators that were made before.
        self._choice = 0
        self._thread = ThreadState()
        self._channel: Optional[torch.Tensor] = None

    @property
    def epoch(self) -> int:
        return self._upcoming().epoch

    @property
    def client(self) -> Client:
        return self._loader.client

    @property
    def classes(self) -> Tuple[str, ...]:
        return self._loader.classes

    @property
    def mean(self) -> np.ndarray:
        return self._loader.mean

    @property
    def std(self) -> np.ndarray:
        return self._loader.std

    @property
    def loader(self) -> Loader:
        return _LoaderOfDataset(self._for_rank(), self)

    def set_epoch(self, epoch: int, start: Optional[int] = None) -> None:
        """Chooses the epoch that the next loop reads. Without it, that is the one after the last.

        The state is that of what was chosen, at once: in the middle of a loop, too, whose rest is then not asked for.

        Args:
            epoch: epoch, 0-based.
            start: first batch of this rank to read, instead of a position that was loaded for this epoch, or of 0.

        Raises:
            ValueError: when ``epoch`` or ``start`` is not in its range; when a position in another epoch was loaded,
                which would be lost, unless ``start`` says that it is not wanted.
        """
        if _torch_frameworks.is_count_of_accelerate():
            # At each loop, of the loops in this process; ours are of the run.
            return
        epoch = _natural("epoch", epoch)
        self._choice += 1
        if start is not None:
            loader, start = self._for_rank(), _natural("start", start)
            if start > len(loader):
                raise ValueError(f"start is {start}; this rank has {len(loader)} batches, so expected 0 to {len(loader)}")
            self._choose(Position(epoch, loader._samples_after(0, start)))
        elif self._is_loaded:
            upcoming = self._upcoming()
            check_epoch(upcoming, epoch)
            self._choose(upcoming, is_loaded=True)
        else:
            # After a loop that failed, and in a copy, that may be in the middle of this epoch.
            upcoming = self._upcoming()
            self._choose(upcoming if upcoming.epoch == epoch else Position(epoch, 0))

    def state_dict(self) -> Dict[str, Any]:
        """The position after the batches that the loop has taken, for a checkpoint: ``epoch`` and ``samples`` of it.

        After the last batch of an epoch that is the beginning of the next one. It can be written as JSON.
        """
        info = get_worker_info()
        if info is not None:
            # A StatefulDataLoader asks its workers, too; what counts is what its loop has taken of theirs.
            return {"worker": info.id}
        return self._state()

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Lets the next loop begin at a saved position, and later ones with the epochs after it.

        Raises:
            ValueError: when the state is none, or one of other parameters, in which a position means other samples.
            ChangedError: when the dataset or the schedule has changed.
        """
        if get_worker_info() is None:
            self._choose(self._loader._position_of(state), is_loaded=True)
            self._choice += 1

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return len(self._for_rank())

    def __iter__(self) -> Iterator[_Tensors]:
        info = get_worker_info()
        if info is not None:
            return self._read(self._begun_for_worker(), info.id, info.num_workers)
        thread = self._thread
        begun, thread.begun = thread.begun or thread.counting, None
        if begun is not None:
            # Its DataLoader counts.
            return self._read(begun)
        _torch_frameworks.refuse_lost_state()
        loop = self._begin()
        return Counted(self._read(loop), loop, self)

    def _choose(self, position: Position, is_loaded: bool = False) -> None:
        self._next, self._is_loaded = position, is_loaded
        self._loop = None

    def _for_rank(self) -> Loader:
        return self._loader if self._given_ranks else self._loader._for_rank(*rank_and_world_size(torch.distributed))

    def _upcoming(self) -> Position:
        """Where the next loop begins."""
        loop = self._loop
        if loop is not None and loop.is_failed:
            # Where that one is by now, as what was ahead may still be taken. An evaluation is that of the whole split.
            return self._where() if self._step else Position(loop.position.epoch, 0)
        return self._normal(self._next, self._for_rank()) if self._is_loaded else self._next

    def _state(self, is_for_later: bool = False) -> Dict[str, Any]:
        """The state, of now or of when a batch that is held back will have been given on."""
        return self._loader._state_at(self._where(is_for_later))

    def _where(self, is_for_later: bool = False) -> Position:
        """Where the latest loop is, or the next one begins."""
        loop = self._loop
        if loop is None:
            return self._upcoming()
        if loop.is_over:
            return Position(loop.position.epoch + self._step, 0)
        loader = self._loader._for_rank(loop.rank, loop.world_size)
        taken = loop.taken + (loop.held_back if is_for_later else 0)
        samples = loader._samples_after(loop.position.samples, taken)
        return self._normal(Position(loop.position.epoch, samples), loader)

    def _normal(self, position: Position, loader: Loader) -> Position:
        """The end of an epoch as the beginning of the one that follows."""
        if position.samples > 0 and loader._is_complete(position.samples):
            return Position(position.epoch + self._step, 0)
        return position

    def _begin(self) -> Loop:
        """Begins a loop, in the process that loops."""
        loader = self._for_rank()
        _torch_frameworks.refuse_second_sharding(loader.world_size)
        position = self._upcoming()
        if len(loader) == 0:
            warn(f"rank {loader.rank} of {loader.world_size} has no batch: there are too few samples")
        batches = loader._batches_after(position.samples)
        return Loop(position, loader.rank, loader.world_size, batches, self._choice)

    def _compare(self, loop: Loop) -> bool:
        """Warns of a framework that is elsewhere; whether that is known by now."""
        return self._step == 0 or _torch_frameworks.warn_of_another_place(loop.position)

    def _started(self, loop: Loop) -> None:
        """A loop has its first batch, or its end: from now on it is the latest, and the next epoch follows it.

        What only makes an iterator, as frameworks do to look at it, has read nothing.
        """
        last = self._loop
        # Two loops over one epoch are read side by side.
        if last is not None and last.is_left and self._step and last.position.epoch != loop.position.epoch:
            warn(
                f"a loop over epoch {last.position.epoch} was left after {last.taken} of {last.batches} batches, and now "
                f"epoch {loop.position.epoch} is read: the rest of epoch {last.position.epoch} is not. A state that was "
                "taken in between goes on with that rest. set_epoch() chooses what the next loop reads"
            )
        self._choose(Position(loop.position.epoch + self._step, 0))
        self._loop = loop

    def _begun_for_worker(self) -> Optional[Loop]:
        """The loop that this worker takes part in."""
        begun, self._thread.begun = self._thread.begun, None
        if begun is not None:
            self._channel = begun.channel
            return begun
        return None if self._channel is None else Loop.received(self._channel)

    def _read(self, loop: Optional[Loop], worker: int = 0, workers: int = 1) -> Iterator[_Tensors]:
        if loop is None:
            # Raised with the first batch: what a worker raises before that is lost.
            raise PbaError(
                "a worker does not know which epoch to read: pass the EpochDataset itself to torch's DataLoader or "
                "torchdata's StatefulDataLoader, or use num_workers=0"
            )
        if worker > 0 and worker >= loop.batches:
            return  # more workers than batches: nothing is left for this one
        loader = self._loader._for_rank(loop.rank, loop.world_size)
        with loader._open_at(loop.position, start=worker, step=workers) as batches:
            for batch in batches:
                yield self._convert(batch)

    def _convert(self, batch: Batch) -> _Tensors:
        converted = tensors(batch)
        if self._channels_first:
            converted["image"] = Normalization(self._loader.mean, self._loader.std)(converted["image"])
        return converted if self._as_dict else Pair(converted["image"], converted["label"])

    def __getstate__(self) -> Dict[str, Any]:
        # A copy goes on where this one is, but for an evaluation. That of a worker is told of its loop.
        position = self._next
        if self._loop is not None:
            position = self._where() if self._step else Position(self._loop.position.epoch, 0)
        return {**self.__dict__, "_next": position, "_loop": None, "_thread": self._thread.begun}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state, _thread=ThreadState())
        self._thread.begun = state["_thread"]


class _LoaderOfDataset(Loader):
    """The loader of an ``EpochDataset``, which counts what is read of it."""

    def __init__(self, loader: Loader, dataset: EpochDataset) -> None:
        self.__dict__.update(loader.__dict__)
        self._of = dataset

    def epoch(self, epoch: int, *, start: Optional[int] = None, step: int = 1) -> Epoch:
        raise PbaError(
            "the loader of an EpochDataset opens no epochs, as the dataset would not count what is read: loop over the "
            "dataset, or make a Loader with the same arguments"
        )

    __call__ = epoch

    def state_dict(self) -> Dict[str, Any]:
        return self._of.state_dict()

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self._of.load_state_dict(state)


def prefetch(
    loader: Iterable[Any],
    device: Union[str, torch.device],
    *,
    mean: Optional[Statistics] = None,
    std: Optional[Statistics] = None,
    channels_first: bool = True,
    memory_format: torch.memory_format = torch.contiguous_format,
    dtype: torch.dtype = torch.float32,
    depth: int = 2,
) -> Prefetch[Any]:
    """The batches of a loader on a device, normalised there: ``for image, label in prefetch(loader, "cuda")``.

    On a GPU, pixels travel as bytes, out of a ring of pinned memory, while the step before them is computed. On a CPU
    the same batches are made, one at a time. The state of an ``EpochDataset`` counts what the loop has taken.

    Args:
        loader: an ``EpochDataset``, or a loader of one, that yields pixels as uint8 [N, H, W, 3].
        device: where to.
        mean, std: per channel, 3 each: 0 to 1, of pixels that are 0 to 1 (a deviation above 0, which counts as 1/255 at
            least). By default those of the dataset.
        channels_first: whether images are [N, 3, H, W], or [N, H, W, 3].
        memory_format: layout of what is [N, 3, H, W]; ``torch.channels_last`` is what convolutions of GPUs like.
        dtype: of the images; one of floating point.
        depth: batches that are copied ahead of the loop on a GPU: 1..64.

    Returns:
        An iterable, for one loop after another, whose batches are pairs or dictionaries as those of ``loader``.

    Raises:
        ValueError: when the mean and deviation are not known, or they, ``depth`` or ``dtype`` are not in their range.
    """
    if not isinstance(depth, int) or not 1 <= depth <= 64:
        raise ValueError(f"depth is {depth!r}; expected an integer of 1 to 64")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; images are normalised to floating point, such as torch.float32 or torch.bfloat16")
    mean = None if mean is None else checked("mean", mean)
    std = None if std is None else checked("std", std)
    dataset = loader if isinstance(loader, EpochDataset) else getattr(loader, "dataset", None)
    if not isinstance(dataset, EpochDataset):
        dataset = None
    if dataset is not None:
        if dataset._channels_first:
            raise ValueError("its images are normalised already; leave out channels_first=True of the EpochDataset")
        mean = dataset._loader.mean if mean is None else mean
        std = dataset._loader.std if std is None else std
    if mean is None or std is None:
        raise ValueError("mean and std are not known: the loader is not one of an EpochDataset; pass mean= and std=")
    device = torch.device(device)
    normalization = Normalization(
        mean, std, device=device, dtype=dtype, channels_first=channels_first, memory_format=memory_format
    )
    return Prefetch(loader, device, normalization, depth)


def _natural(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
        raise ValueError(f"{name} is {value!r}; expected an integer of 0 to {NUMBER_MAX}")
    return int(value)


# Wherever a dataset comes from: an unpickled one imports this.
_torch_loaders.watch(EpochDataset)
