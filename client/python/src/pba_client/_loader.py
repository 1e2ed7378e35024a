"""The batches of a training run."""

from __future__ import annotations

import copy
import logging
import os
import sys
import warnings
from functools import partial
from numbers import Integral
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from ._client import Client, check_switch
from ._epoch import Epoch, compare_replica
from ._errors import ChangedError, PbaError, PbaWarning, RefusedError, StreamError, UnreachableError
from ._metadata import Metadata
from ._private import located
from ._progress import Progress, check_state, state_of
from ._request import EpochRequest, Policy, plain, segment

_LOG = logging.getLogger("pba_client")
# What a position is the same for: shards and batches are of the samples that are left.
_REGROUPED = ("shard", "batch_size")
# Schedules that leave images as they are, but for the base augmentation.
UNSCHEDULED = (None, "none", "identity")
# Read in order, unless they are shuffled, and not trained on.
EVALUATION_SPLITS = ("val", "test")


class Position(NamedTuple):
    """A place in a training run: of an epoch, 0-based, how many samples were read by all ranks."""

    epoch: int
    samples: int


class Loader:
    """Reads the batches of a training run, epoch by epoch.

    Args:
        url: one URL, or several of replicas; by default as for ``Client``. Or the path of a dataset, such as
            ``/data/cifar10``, for which a private server is started, as by ``serve``.
        dataset: name of the dataset; may be left out with a path only.
        schedule: name or digest of a schedule; a policy by name, such as ``randaugment:2:9``;
            ``none`` or ``identity``.
        epochs: epochs of the whole run, to which the schedule is stretched.
        batch_size: images per batch of this rank.
        rank: the shard of the epoch that this process reads, 0-based.
        world_size: number of shards.
        split, seed, shuffle, drop_last, ablation, policy, base, codec: as for ``Client.epoch``. With
            several ranks, ``drop_last=True`` gives each the same number of batches.
        headspace: whether each epoch is its first batch, repeated as often as it has batches. The
            server is asked for that one only, so that the time of an epoch is that of the training
            loop with a perfect loader: the head space that a faster server would leave. Nothing that is
            trained so is of use, which the logger ``pba_client`` says at level ``WARNING``.
        token, ca, stall_seconds, retry_seconds, wait_seconds, prefetch, shared_memory, checksums: as for
            ``Client``.

    Attributes:
        client: the client, for everything else.
        rank, world_size: as given.
        classes: class names, by label.
        mean: mean per channel, 0..1, of the training split where there is one: float32 [3].
        std: standard deviation per channel, 0..1, likewise: float32 [3].

    Raises:
        RefusedError: when there is no such dataset, or a replica does not have what others have.
        ChangedError: when replicas would send different samples.
        UnreachableError: when no server can be reached.
        TypeError: when ``dataset`` is missing, or there is no such parameter.
        FileNotFoundError, StartError: for a path, as by ``serve``.
        ValueError: when ``rank`` is not one of ``world_size``, or as for ``Client``.

    >>> from pba_client import Loader
    >>> loader = Loader("http://127.0.0.1:8080", "shapes", "cifar10-pba", 200)  # doctest: +SKIP
    >>> for batch in loader.epoch(0):  # doctest: +SKIP
    ...     batch.image, batch.label
    """

    def __init__(
        self,
        url: Union[str, "os.PathLike[str]", Sequence[str], None] = None,
        dataset: Optional[str] = None,
        schedule: Optional[str] = None,
        epochs: Optional[int] = None,
        batch_size: int = 128,
        *,
        rank: int = 0,
        world_size: int = 1,
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
        rank, world_size = _ranks(rank, world_size)
        headspace = check_switch("headspace", headspace)
        url, dataset = located(url, dataset)
        self.client = Client(
            url,
            token=token,
            ca=ca,
            stall_seconds=stall_seconds,
            retry_seconds=retry_seconds,
            wait_seconds=wait_seconds,
            prefetch=prefetch,
            shared_memory=shared_memory,
            checksums=checksums,
        )
        self._dataset = dataset
        self._split = split
        batch_size = plain(batch_size)
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._schedule = schedule
        self.rank = rank
        self.world_size = world_size
        self._request = partial(
            EpochRequest,
            dataset,
            schedule=schedule,
            epochs=epochs,
            batch_size=batch_size,
            split=split,
            seed=seed,
            shuffle=shuffle,
            shard=(rank, world_size),
            drop_last=drop_last,
            ablation=ablation,
            policy=policy,
            base=base,
            codec=codec,
        )
        description = self.client._get(f"/v1/datasets/{segment(dataset)}")
        try:
            samples = description["splits"].get(split, {}).get("samples")
            self._samples = 0 if samples is None else int(samples)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StreamError(f"a server does not describe {dataset!r} properly") from error
        if samples is None:
            # It is being imported, cannot be read, or has no such split. A stream waits for it, comes from another
            # replica, or is refused with the reason.
            with self._open(self._request(0, shard=None, drop_last=False)) as whole:
                self._samples = whole.metadata.rows
        # A refusal is better reported now than in the first epoch. This also returns the digests
        # that every later epoch must have. No batch comes after the last one.
        try:
            end = len(self)
        except (TypeError, ValueError, ZeroDivisionError):
            end = 0  # the server reports the error in the batch size
        with self._open(self._request(0, start=end)) as nothing:
            list(nothing)
        if not isinstance(batch_size, Integral):
            # The server takes a text as well.
            raise TypeError(f"batch_size is {batch_size!r}; expected an integer")
        self._metadata: Metadata = nothing.metadata
        self._compare_replicas(end, nothing.progress.replica)
        self.classes: Tuple[str, ...] = self._metadata.classes
        self.mean: np.ndarray = np.array(self._metadata.mean, np.float32)
        self.std: np.ndarray = np.array(self._metadata.std, np.float32)
        if split in EVALUATION_SPLITS and (schedule not in UNSCHEDULED or policy is not None):
            augmented = "a policy" if schedule in UNSCHEDULED else f"the schedule {schedule!r}"
            warn(
                f"split={split!r} is streamed with {augmented}, so that its images are augmented, which an evaluation "
                "does not want: leave it out for them"
            )
        if epochs is None and schedule not in UNSCHEDULED:
            self._warn_of_length()
        self._progress: Progress = Progress(self._request(0), metadata=self._metadata)
        # A position that was loaded, until its epoch is opened.
        self._saved: Optional[Position] = None
        self._headspace: bool = headspace
        if headspace:
            _LOG.warning(
                "headspace=True: each epoch repeats its first batch, to measure the training loop; nothing that is "
                "trained so is of use"
            )

    def _warn_of_length(self) -> None:
        """Warns of a schedule that changes, where the length of the run is not known."""
        for known in self.client.schedules():
            # Where the policy never changes, there is one segment.
            is_it = self._schedule in (known.get("name"), known.get("digest"))
            if is_it and isinstance(known.get("segments"), int) and known["segments"] > 1:
                warn(
                    f"epochs= is left out: the schedule {self._schedule!r} is followed at its own length of "
                    f"{known.get('epochs')} epochs, and a shorter run sees only its beginning; pass epochs=, the "
                    "number of epochs that you train, and it is stretched to them"
                )

    def _compare_replicas(self, end: int, first: int) -> None:
        """Ranks begin at different replicas, so those that answer must send the same as the first."""
        for replica in range(first + 1, first + len(self.client.urls)):
            try:
                compare_replica(self.client._access, self._request(0, start=end), self._metadata, replica)
            except (RefusedError, UnreachableError, StreamError) as error:
                if isinstance(error, RefusedError) and error.status == 404:
                    raise error.telling(f"{self._url(replica)}: {error.detail}") from error
                # It may be full, or starting; it is compared when it is needed.

    def _url(self, replica: int) -> str:
        return self.client.urls[replica % len(self.client.urls)]

    def __len__(self) -> int:
        """Batches of each epoch of this rank."""
        return self._batches(self.rank)

    def _batches(self, rank: int, skip: int = 0) -> int:
        """Batches of a rank in what follows the first ``skip`` samples of an epoch."""
        samples = self._samples - skip
        if self._drop_last:
            return samples // self.world_size // self._batch_size
        rows = max(0, -((rank - samples) // self.world_size))
        return -(-rows // self._batch_size)

    def _for_rank(self, rank: int, world_size: int) -> Loader:
        """The same for another rank, or another number of them. No server is asked.

        Raises:
            ValueError: when ``rank`` is not one of ``world_size``.
        """
        rank, world_size = _ranks(rank, world_size)
        other = copy.copy(self)
        other.rank, other.world_size = rank, world_size
        other._request = partial(self._request, shard=(rank, world_size))
        other._progress = Progress(other._request(0), metadata=self._metadata)
        return other

    def epoch(self, epoch: int, *, start: Optional[int] = None, step: int = 1) -> Epoch:
        """Opens an epoch, at the saved position if one was loaded.

        Batches are numbered from the beginning of the epoch; where it was begun with other ranks or another batch
        size, from where these ended, unless that is the end of a batch of all ranks.

        Args:
            epoch: epoch, 0-based.
            start: first batch to read, instead of the saved position or 0.
            step: read every ``step``-th batch.

        Raises:
            ValueError: when a position in another epoch was loaded, which would be lost; ``start`` says that it
                is not wanted.
            ChangedError: when the dataset or the schedule has changed.
            RefusedError: when the server refuses, for example an epoch after the run's last.
            UnreachableError: when no server can be reached.
        """
        samples = 0
        if start is None and self._saved is not None:
            check_epoch(self._saved, epoch)
            samples = self._saved.samples
        opened = self._open_at(Position(epoch, samples), start=start, step=step)
        self._saved = None
        return opened

    def _open_at(self, position: Position, *, start: Optional[int] = None, step: int = 1) -> Epoch:
        """Opens an epoch after samples that all ranks have read; ``start`` counts batches from there."""
        skip, first = self._place(position.samples)
        start = first if start is None else first + start
        batches = len(range(start, self._batches(self.rank, skip), step))
        request = self._request(position.epoch, skip=skip, start=start, step=step)
        opened = self._open(request, self._metadata, batches if self._headspace else None)
        found = opened.metadata.batches
        if found != batches:
            opened.close()
            raise ChangedError.of(self._url(opened.progress.replica), "pba.batches", str(found), str(batches))
        self._progress = opened.progress
        return opened

    def _place(self, samples: int) -> Tuple[int, int]:
        """Where the batches after ``samples`` of an epoch are: what to skip, and the first batch after that."""
        batches, rest = divmod(samples, self.world_size * self._batch_size)
        if rest == 0 and batches <= len(self):
            return 0, batches
        # No batch is left, if nothing is.
        return samples, 0

    def _batches_after(self, samples: int) -> int:
        """Batches of this rank after ``samples`` of an epoch."""
        skip, start = self._place(samples)
        return self._batches(self.rank, skip) - start

    def _samples_after(self, samples: int, batches: int) -> int:
        """Samples that were read of an epoch when each rank has read so many batches after the first ``samples``."""
        return min(self._samples, samples + batches * self.world_size * self._batch_size)

    def _is_complete(self, samples: int) -> bool:
        """Whether no rank has a batch left after ``samples`` of an epoch."""
        skip, start = self._place(samples)
        # The first rank has the most.
        return self._batches(0, skip) <= start

    __call__ = epoch

    def _open(
        self, request: EpochRequest, expected: Optional[Metadata] = None, headspace: Optional[int] = None
    ) -> Epoch:
        # Ranks begin at different replicas, so that all of them have work.
        return self.client._open(request, expected, self.rank, headspace)

    def state_dict(self) -> Dict[str, Any]:
        """The position after the batches taken from the latest epoch, for a checkpoint: ``epoch``, and ``samples``
        of it that all ranks have read, if each has taken as many batches as this one.

        It can be written as JSON. One checkpoint is right for every rank, for another number of ranks, and for
        another batch size: they go on with the samples that are left.

        Raises:
            PbaError: when the latest epoch is read with a ``step``, which has no position, or with
                ``headspace``.
        """
        return self._state_at(self._position())

    def _position(self) -> Position:
        """What ``state_dict`` tells."""
        if self._headspace:
            raise PbaError("a loader with headspace=True has no position to resume from: it repeats one batch")
        if self._saved is not None:
            return self._saved
        request = self._progress.request
        if request.step != 1:
            raise PbaError("an epoch read with a step has no position to resume from")
        return Position(request.epoch, self._samples_after(request.skip, request.number(self._progress.received)))

    def _go_to(self, position: Position) -> None:
        """Lets the next epoch that is opened begin at a position."""
        self._saved = position

    def _state_at(self, position: Position) -> Dict[str, Any]:
        """A position as ``state_dict`` returns it."""
        if self._headspace:
            raise PbaError("a loader with headspace=True has no position to resume from: it repeats one batch")
        return state_of(position._asdict(), self._comparable(), self._metadata)

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Lets ``epoch(state["epoch"])`` begin after the saved samples. It has to be the next epoch that is opened.

        Raises:
            ValueError: when the state belongs to a loader with other parameters, in which a position means other
                samples, or an epoch has fewer samples.
            ChangedError: when the dataset or the schedule has changed.
        """
        self._go_to(self._position_of(state))

    def _position_of(self, state: Dict[str, Any]) -> Position:
        """The position of a state, checked as by ``load_state_dict``."""
        check_state(state, self._comparable(), self._metadata, self.client._access, counts="samples")
        position = Position(plain(state["epoch"]), plain(state["samples"]))
        if position.samples > self._samples:
            raise ValueError(f"the state is after {position.samples} samples; an epoch has {self._samples}")
        return position

    def _comparable(self) -> Dict[str, Any]:
        """The request without its position and how it is dealt out, which may be other in another job."""
        request = self._request(0)
        parameters = {name: value for name, value in request.parameters.items() if name not in _REGROUPED}
        return {"dataset": request.dataset, "parameters": parameters}

    def __repr__(self) -> str:
        return f"<Loader of {self._dataset!r} {self._split}, rank {self.rank} of {self.world_size}>"


def check_epoch(saved: Position, epoch: int) -> None:
    """Refuses another epoch than that of a position that was loaded, with a ``ValueError``."""
    if epoch != saved.epoch:
        raise ValueError(
            f"a position in epoch {saved.epoch} was loaded, and would be lost in epoch {epoch}: begin with epoch "
            f"{saved.epoch}, or pass start=0 to read all of epoch {epoch}"
        )


def _ranks(rank: Any, world_size: Any) -> Tuple[int, int]:
    """A rank and the number of ranks, checked."""
    if not (isinstance(rank, Integral) and isinstance(world_size, Integral) and 0 <= rank < world_size):
        raise ValueError(
            f"rank is {rank!r} and world_size {world_size!r}; expected integers, 0 <= rank < world_size"
        )
    return plain(rank), plain(world_size)


def warn(text: str) -> None:
    """Warns of what its user would not want, in the line that is not of this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, PbaWarning, stacklevel=level)
