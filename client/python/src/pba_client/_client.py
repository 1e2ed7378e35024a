"""Requests to one of several servers."""

from __future__ import annotations

import itertools
import json
import os
import time
from numbers import Integral, Real
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np

from ._address import Address, parse_url, usual_addresses
from ._epoch import Epoch, Headspace, Remarks
from ._errors import PbaError, RefusedError, StreamError
from ._http import DOCUMENT_SECONDS, Access, ForeignError, Response
from ._metadata import Metadata
from ._outage import Outage, may_pass
from ._private import url_of
from ._request import EpochRequest, Policy, Shard, segment

# A week, which is practically never.
SECONDS_MAX = 7 * 24 * 3600
# More batches than this are a mistake.
PREFETCH_MAX = 1000
# Most requests whose digests are remembered, some hundred bytes each. A training run has a few: one for each split.
REMEMBERED_MAX = 65_536


def check_switch(name: str, value: Any) -> bool:
    """An option that is on or off; a text such as ``"false"`` would be on."""
    if isinstance(value, np.bool_) or (isinstance(value, Integral) and value in (0, 1)):
        return bool(value)
    raise ValueError(f"{name} is {value!r}; expected True or False")


def _check_seconds(name: str, seconds: float, from_zero: bool) -> None:
    if not (isinstance(seconds, Real) and 0 <= seconds <= SECONDS_MAX and (from_zero or seconds > 0)):
        least = "0" if from_zero else "more than 0"
        raise ValueError(f"{name} is {seconds!r}; expected seconds, {least}, and at most {SECONDS_MAX}, a week")


class Client:
    """Talks to the replicas of a PBA server.

    Args:
        urls: one URL, or several of replicas that serve the same datasets and schedules:
            ``http://HOST:PORT``, where ``http://`` may be omitted, ``https://HOST:PORT``, or
            ``unix:PATH`` on the server's machine. By default those of ``PBA_SERVER`` in the
            environment, with commas between them, or ``http://127.0.0.1:8080``. A path, such as
            ``/data/cifar10`` or ``./cifar10``, is that of a dataset, and starts a private server for it,
            as ``serve`` does.
        token: bearer token sent with every request; by default that of ``PBA_TOKEN`` in the
            environment, if set. ``http://`` sends it in the clear.
        ca: path of a PEM file with the certificate of the authority to trust for ``https://``
            servers, instead of the system's; by default that of ``PBA_CA``.
        stall_seconds: how long a server may send nothing before its stream counts as cut: more than
            0, at most a week.
        retry_seconds: how long what fails is tried again before it is an error, 0 to a week, counted
            from the first failure since the last batch: a stream that is cut, and a server that is full, at
            fault for a while, or gone after it was reached. Each of the URLs is tried in turn, with pauses
            from 0.1 to 10 seconds, or as long as the server asks for; 0 tries each once. The logger
            ``pba_client`` says when this begins, at level ``WARNING``, and when it is over, at ``INFO``.
        wait_seconds: how long the first contact waits for a server that accepts no connection yet, as
            one that is started at the same time, 0 to a week. By default it fails at once, as the
            address may be mistyped; that of a private server is not, which ``retry_seconds`` applies to.
        prefetch: batches that a thread fetches ahead of the loop, 0 to 1000; 0 reads in the loop's
            own thread. By default 2, but 0 for uncompressed batches of up to 1 MiB from the same
            machine over ``http://`` or ``unix:``: such a batch is read in less time than
            threads take to hand it over, while the kernel and the server hold the next ones.
        shared_memory: whether batches of a server at a ``unix:`` URL may come through shared
            memory; the batches are the same either way.
        checksums: whether the checksum that comes with each batch is checked. By default it is over
            ``http://`` and through a Unix socket, and not over ``https://``, where TLS answers for the
            bytes. Batches in shared memory have none.

    Raises:
        ValueError: when there is no URL, or one is not a server's URL, in ``PBA_SERVER`` too; when
            an option is out of its range, the token is not valid in a header, or ``ca`` is not a file of
            certificates.
        FileNotFoundError, StartError: for a path, as by ``serve``.

    >>> from pba_client import Client
    >>> client = Client("http://127.0.0.1:8080")
    >>> with client.epoch("shapes", 0, schedule="cifar10-pba") as epoch:  # doctest: +SKIP
    ...     for batch in epoch:
    ...         batch.image, batch.label
    """

    def __init__(
        self,
        urls: Union[str, "os.PathLike[str]", Sequence[str], None] = None,
        *,
        token: Optional[str] = None,
        ca: Union[str, "os.PathLike[str]", None] = None,
        stall_seconds: float = 120.0,
        retry_seconds: float = 600.0,
        wait_seconds: float = 0.0,
        prefetch: Optional[int] = None,
        shared_memory: bool = True,
        checksums: Optional[bool] = None,
    ) -> None:
        _check_seconds("stall_seconds", stall_seconds, from_zero=False)
        _check_seconds("retry_seconds", retry_seconds, from_zero=True)
        _check_seconds("wait_seconds", wait_seconds, from_zero=True)
        if prefetch is not None and not (isinstance(prefetch, int) and 0 <= prefetch <= PREFETCH_MAX):
            raise ValueError(f"prefetch is {prefetch!r}; expected an integer of 0 to {PREFETCH_MAX}, or None")
        self._access = Access(
            _addresses(url_of(urls)),
            token,
            ca,
            stall_seconds,
            retry_seconds,
            wait_seconds,
            prefetch,
            check_switch("shared_memory", shared_memory),
            None if checksums is None else check_switch("checksums", checksums),
        )
        if self._access.ca is not None or any(address.scheme == "https" for address in self._access.addresses):
            self._access.context()  # a wrong file is better said at once
        # A server that was reached once is expected to come back; one that never was may be a
        # mistyped address, which is better reported at once.
        self._reached = False
        # What was told first for each request but for its epoch and its part of that, which must not change.
        self._told: Dict[Tuple[str, ...], Metadata] = {}
        self._remarks = Remarks()

    @property
    def urls(self) -> List[str]:
        """The servers, each URL in its full form: ``http://127.0.0.1:8080`` for ``127.0.0.1:8080``."""
        return [str(address) for address in self._access.addresses]

    def datasets(self) -> List[Dict[str, Any]]:
        """Describes every dataset: name, classes, base augmentation, and its splits with their
        number of samples, shape, mean, standard deviation and digest. A split whose images
        differ in size has the shape ``None``; ``sizes`` has the smallest and largest sides.

        Raises:
            UnreachableError: when no server can be reached.
        """
        return self._list("datasets")

    def dataset(self, name: str) -> Dict[str, Any]:
        """Describes one dataset.

        Raises:
            RefusedError: when there is none with this name.
            UnreachableError: when no server can be reached.
        """
        return self._get(f"/v1/datasets/{segment(name)}")

    def schedules(self) -> List[Dict[str, Any]]:
        """Lists every schedule: name, digest, epochs, number of segments, provenance.

        Raises:
            UnreachableError: when no server can be reached.
        """
        return self._list("schedules")

    def schedule(self, name: str) -> Dict[str, Any]:
        """A schedule's complete document, as ``pba-schedule/1`` or ``/2``.

        Raises:
            RefusedError: when there is none with this name.
            UnreachableError: when no server can be reached.
        """
        return self._get(f"/v1/schedules/{segment(name)}")

    def epoch(
        self,
        dataset: str,
        epoch: int,
        *,
        schedule: Optional[str] = None,
        split: Optional[str] = "train",
        batch_size: Optional[int] = 128,
        seed: Optional[int] = 0,
        shuffle: Optional[bool] = None,
        shard: Optional[Shard] = None,
        skip: int = 0,
        start: int = 0,
        step: int = 1,
        drop_last: Optional[bool] = False,
        ablation: Optional[str] = None,
        policy: Optional[Policy] = None,
        epochs: Optional[int] = None,
        base: Optional[str] = None,
        codec: Optional[str] = None,
    ) -> Epoch:
        """Streams one epoch of a dataset.

        Args:
            dataset: name of the dataset.
            epoch: epoch, 0-based.
            schedule: name or digest of a schedule; a policy by name, such as
                ``randaugment:2:9``; ``none`` (base augmentation only, the default) or
                ``identity`` (untouched pixels).
            split: ``train``, ``val`` or ``test``.
            batch_size: images per batch, 1..65536.
            seed: seed of every random decision, 0..2**64-1.
            shuffle: whether the order is a seeded permutation; by default of ``train`` only.
            shard: part of the epoch to send, ``(i, n)`` or ``"i/n"``.
            skip: samples left out at the beginning of the epoch's order, before the rest is cut into shards and
                batches: those that were read with other shards or batches.
            start: first batch of the shard to send.
            step: send every ``step``-th batch.
            drop_last: drop the last short batch, and samples that would make shards unequal.
            ablation: ``scheduled``, ``flatten``, ``shuffled`` or ``final``.
            policy: 60 integers used instead of a schedule: probability 0..10 and magnitude 0..9
                of each of 30 slots.
            epochs: epochs of the whole training run, to which the schedule is stretched.
            base: base augmentation, such as ``pad_crop:4,flip,cutout:16`` or
                ``random_resized_crop:224,flip``; by default the dataset's.
            codec: compression of the stream: ``zstd`` or ``lz4``; helps on a slow network only.

        Raises:
            ChangedError: when the dataset, the schedule or anything else that pixels or order depend on is not
                what it was for an earlier epoch of this client.
            RefusedError: when the server refuses a parameter, or is full for too long. A dataset that
                is being imported is waited for.
            UnreachableError: when no server can be reached.
        """
        arguments = locals()
        del arguments["self"]
        return self._open(EpochRequest(**arguments))

    def _open(
        self,
        request: EpochRequest,
        expected: Optional[Metadata] = None,
        replica: int = 0,
        headspace: Optional[int] = None,
    ) -> Epoch:
        """Opens a stream; with ``headspace``, one that gives its first batch so often."""
        key = request.recipe_key()
        if len(self._told) >= REMEMBERED_MAX and key not in self._told:
            raise PbaError(
                f"this client has asked for {REMEMBERED_MAX} different streams, and remembers no more of them; "
                "make another client"
            )
        expected = expected or self._told.get(key)
        opened: Epoch
        if headspace is None:
            opened = Epoch(self._access, request, self._reached, expected, replica, self._remarks)
        else:
            opened = Headspace(self._access, request, self._reached, expected, replica, headspace)
        self._reached = True
        # Names of classes may be many, and are not compared.
        self._told.setdefault(key, opened.metadata._replace(classes=()))
        return opened

    def _list(self, name: str) -> List[Dict[str, Any]]:
        document = self._get(f"/v1/{name}")
        if not isinstance(document.get(name), list):
            url = f"{self._access.addresses[0]}/v1/{name}"
            raise StreamError(f"{url} did not answer like a PBA server: it lists no {name}")
        return document[name]

    def _get(self, target: str) -> Any:
        """Reads a JSON document from the first server that gives it, as patiently as a stream."""
        outage: Optional[Outage] = None
        for replica in itertools.count():
            address = self._access.addresses[replica % len(self._access.addresses)]
            try:
                document = self._get_once(address, target)
            except PbaError as error:
                if not may_pass(error):
                    raise
                failure = error
            else:
                self._reached = True
                if outage is not None:
                    outage.over()
                return document
            outage = outage or Outage(self._access, self._reached, f"{target} could not be read", ("again", "read"))
            pause_seconds = outage.failed(address, failure)
            if pause_seconds is None:
                raise outage.error()
            time.sleep(pause_seconds)

    def _get_once(self, address: Address, target: str) -> Any:
        seconds = min(self._access.stall_seconds, DOCUMENT_SECONDS)
        try:
            response = Response(
                address, target, accept="application/json", access=self._access, stall_seconds=seconds
            )
            with response.opened:
                response.check()
                document = json.loads(response.document())
            if not isinstance(document, dict):
                raise ValueError("it is not a JSON object")
            return document
        except (RefusedError, ForeignError):
            raise
        except (StreamError, ValueError, RecursionError) as error:
            # A cut stays one.
            kind = type(error) if isinstance(error, StreamError) else StreamError
            shown = self._access.hide(str(error))
            raise kind(f"{address}{target} did not answer like a PBA server: {shown}") from None

    def __repr__(self) -> str:
        return f"Client({self.urls!r})"


def _addresses(urls: Union[str, Sequence[str], None]) -> List[Address]:
    """The servers that are named, or those of the environment."""
    if urls is None:
        return usual_addresses()
    listed = [urls] if isinstance(urls, str) else list(urls) if isinstance(urls, Iterable) else [urls]
    if not all(isinstance(url, str) for url in listed):
        raise ValueError(f"urls is {urls!r}; expected a URL, as http://127.0.0.1:8080, or a list")
    if not listed:
        raise ValueError("no server is given; expected at least one URL, such as http://127.0.0.1:8080")
    return [parse_url(url) for url in listed]
