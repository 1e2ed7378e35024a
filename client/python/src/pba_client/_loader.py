"""The batches of a training run."""

from __future__ import annotations

import os
from functools import partial
from inspect import signature
from numbers import Integral
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import numpy as np

from ._client import Client
from ._epoch import Epoch, compare_replica
from ._errors import ChangedError, PbaError, RefusedError, StreamError, UnreachableError
from ._metadata import Metadata
from ._progress import Progress, check_state
from ._request import EpochRequest, plain, segment


# What a stream is asked for besides what a loader decides: all that ``Client.epoch`` takes.
_PARAMETERS = [
    name
    for name in signature(Client.epoch).parameters
    if name not in ("self", "dataset", "epoch", "shard", "start", "step")
]


class Loader:
    """Reads the batches of a training run, epoch by epoch.

    Args:
        url: one URL, or several of replicas.
        dataset: name of the dataset.
        schedule: name or digest of a schedule; a policy by name, such as ``randaugment:2:9``;
            ``none`` or ``identity``.
        epochs: epochs of the whole run, to which the schedule is stretched.
        batch_size: images per batch of this rank.
        rank: the shard of the epoch that this process reads, 0-based.
        world_size: number of shards.
        split, seed, drop_last: as for ``Client.epoch``. With several ranks, ``drop_last=True`` gives
            each the same number of batches.
        token, ca, stall_seconds, retries, prefetch, shared_memory, checksums: as for ``Client``.
        parameters: what else ``Client.epoch`` takes for a stream, such as ``base`` or ``policy``.

    Attributes:
        client: the client, for everything else.
        classes: class names, by label.
        mean: mean per channel, 0..1, of the training split where there is one: float32 [3].
        std: standard deviation per channel, 0..1, likewise: float32 [3].

    Raises:
        RefusedError: when there is no such dataset, or a replica does not have what others have.
        ChangedError: when replicas would send different samples.
        UnreachableError: when no server can be reached.
        TypeError: when ``Client.epoch`` has no such parameter.
        ValueError: when ``rank`` is not one of ``world_size``, or as for ``Client``.

    >>> from pba_client import Loader
    >>> loader = Loader("http://127.0.0.1:8080", "shapes", "cifar10-pba", 200)  # doctest: +SKIP
    >>> for batch in loader.epoch(0):  # doctest: +SKIP
    ...     batch.image, batch.label
    """

    def __init__(
        self,
        url: Union[str, Sequence[str]],
        dataset: str,
        schedule: Optional[str] = None,
        epochs: Optional[int] = None,
        batch_size: int = 128,
        *,
        rank: int = 0,
        world_size: int = 1,
        split: str = "train",
        seed: int = 0,
        drop_last: bool = False,
        token: Optional[str] = None,
        ca: Union[str, "os.PathLike[str]", None] = None,
        stall_seconds: float = 120.0,
        retries: int = 8,
        prefetch: Optional[int] = None,
        shared_memory: bool = True,
        checksums: Optional[bool] = None,
        **parameters: Any,
    ) -> None:
        for name in parameters:
            if name not in _PARAMETERS:
                raise TypeError(
                    f"Loader has no parameter {name!r}; those of a stream are {', '.join(_PARAMETERS)}"
                )
        if not (isinstance(rank, Integral) and isinstance(world_size, Integral) and 0 <= rank < world_size):
            raise ValueError(
                f"rank is {rank!r} and world_size {world_size!r}; expected integers, 0 <= rank < world_size"
            )
        self.client = Client(
            url,
            token=token,
            ca=ca,
            stall_seconds=stall_seconds,
            retries=retries,
            prefetch=prefetch,
            shared_memory=shared_memory,
            checksums=checksums,
        )
        self._dataset = dataset
        self._split = split
        rank, world_size, batch_size = plain(rank), plain(world_size), plain(batch_size)
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._rank = rank
        self._world_size = world_size
        self._request = partial(
            EpochRequest,
            dataset,
            schedule=schedule,
            epochs=epochs,
            batch_size=batch_size,
            split=split,
            seed=seed,
            shard=(rank, world_size),
            drop_last=drop_last,
            **parameters,
        )
        description = self.client._get(f"/v1/datasets/{segment(dataset)}", patient=True)
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
        except (TypeError, ZeroDivisionError):
            end = 0  # the server reports the error in the batch size
        with self._open(self._request(0, start=end)) as nothing:
            list(nothing)
        if not isinstance(batch_size, Integral):
            # The server takes a text as well.
            raise TypeError(f"batch_size is {batch_size!r}; expected an integer")
        self._metadata = nothing.metadata
        self._compare_replicas(end, nothing.progress.replica)
        self.classes: Tuple[str, ...] = self._metadata.classes
        self.mean = np.array(self._metadata.mean, np.float32)
        self.std = np.array(self._metadata.std, np.float32)
        self._progress = Progress(self._request(0), metadata=self._metadata)
        # A position that was loaded, until its epoch is opened.
        self._saved: Optional[Progress] = None

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
        if self._drop_last:
            return self._samples // self._world_size // self._batch_size
        rows = max(0, -((self._rank - self._samples) // self._world_size))
        return -(-rows // self._batch_size)

    def epoch(self, epoch: int, *, start: Optional[int] = None, step: int = 1) -> Epoch:
        """Opens an epoch, at the saved position if one was loaded for it.

        Args:
            epoch: epoch, 0-based.
            start: first batch to read, instead of the saved position or 0.
            step: read every ``step``-th batch.

        Raises:
            ChangedError: when the dataset or the schedule has changed.
            RefusedError: when the server refuses, for example an epoch after the run's last.
            UnreachableError: when no server can be reached.
        """
        saved = self._saved if self._saved is not None and self._saved.request.epoch == epoch else None
        if start is None:
            start = 0 if saved is None else saved.received
        opened = self._open(self._request(epoch, start=start, step=step), self._metadata)
        found, batches = opened.metadata.batches, len(range(start, len(self), step))
        if found != batches:
            opened.close()
            raise ChangedError(self._url(opened.progress.replica), "pba.batches", str(found), str(batches))
        self._progress = opened.progress
        if saved is not None:
            self._saved = None
        return opened

    __call__ = epoch

    def _open(self, request: EpochRequest, expected: Optional[Metadata] = None) -> Epoch:
        # Ranks begin at different replicas, so that all of them have work.
        return self.client._open(request, expected, replica=self._rank)

    def state_dict(self) -> Dict[str, Any]:
        """The position after the batches taken from the latest epoch, for a checkpoint.

        It can be written as JSON.

        Raises:
            PbaError: when the latest epoch is read with a ``step``, which has no position.
        """
        if self._progress.request.step != 1:
            raise PbaError("an epoch read with a step has no position to resume from")
        return {**self._progress.state(), "request": self._comparable()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Lets the next ``epoch(state["epoch"])`` begin at the saved batch, whatever is opened before.

        Raises:
            ValueError: when the state belongs to a loader with other parameters, in which the number
                of a batch means other samples, or an epoch has fewer batches.
            ChangedError: when the dataset or the schedule has changed.
        """
        check_state(state, self._comparable(), self._metadata, self.client._access)
        if state["batch"] > len(self):
            raise ValueError(f"the state is after batch {state['batch']}; an epoch of this rank has {len(self)}")
        self._progress = self._saved = Progress(
            self._request(state["epoch"]), metadata=self._metadata, received=state["batch"]
        )

    def _comparable(self) -> Dict[str, Any]:
        """The request without its position, which is the same in every epoch."""
        state = self._request(0).state()
        return {key: state[key] for key in ("dataset", "parameters")}

    def __repr__(self) -> str:
        return f"<Loader of {self._dataset!r} {self._split}, rank {self._rank} of {self._world_size}>"
