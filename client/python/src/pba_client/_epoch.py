"""A stream of one epoch."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import pyarrow as pa

from . import _source
from ._address import Address
from ._batch import Batch
from ._errors import ChangedError
from ._http import Access
from ._ipc import Counters
from ._metadata import Metadata, image_shape
from ._reader import Reader
from ._request import EpochRequest, check_same
from ._source import Direct, Item, Prefetch, stop

# Default of batches fetched ahead by a thread.
PREFETCH_BATCHES = 2
# A batch of up to this size from the same machine is read in less time than a thread takes to hand it
# over, while the kernel and the server hold the next ones.
DIRECT_BYTES_MAX = 1024 * 1024
# Batches in shared memory beyond those fetched ahead: the loop's own, the one before it while the
# loop goes on, and two that a trainer may still be copying to its device.
MEMORY_BATCHES_LOOP = 4
# In the state of an epoch, to distinguish later formats.
STATE_VERSION = 1


def check_state(state: Any) -> None:
    """Refuses a state that ``state_dict`` cannot have returned.

    Raises:
        ValueError: with the reason.
    """
    if not isinstance(state, dict):
        raise ValueError(f"a state is a dict, as returned by state_dict(); this is a {type(state).__name__}")
    if state.get("version") != STATE_VERSION:
        raise ValueError(f"the state has version {state.get('version')!r}; expected {STATE_VERSION}")
    for key in ("epoch", "batch"):
        value = state.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"the state's {key} is {value!r}; expected an integer of 0 or more")
    if not isinstance(state.get("request"), dict):
        raise ValueError(f"the state's request is {state.get('request')!r}; expected a dict")
    missing = {"dataset_digest", "schedule_digest"} - set(state)
    if missing:
        raise ValueError(f"the state has no {', '.join(sorted(missing))}")


class Progress:
    """The progress of an epoch, which may outlive it."""

    def __init__(self, request: EpochRequest) -> None:
        self.request = request
        self.received = 0
        self.metadata: Optional[Metadata] = None

    def state(self) -> Dict[str, Any]:
        state: Dict[str, Any] = {
            "version": STATE_VERSION,
            "epoch": self.request.epoch,
            "batch": self.request.number(self.received),
            "request": self.request.state(),
        }
        if self.metadata is not None:
            state["dataset_digest"] = self.metadata.dataset
            state["schedule_digest"] = self.metadata.schedule
        return state


class Epoch:
    """Batches of one epoch, in order, each exactly once.

    An iterator and a context manager: end it with ``close()``, with ``with``, or by dropping the
    last reference to it. A stream that is cut resumes at the next batch, on the next of the
    client's servers. After an error it keeps its position, and ``next()`` tries again. Threads may
    share it: each batch goes to one of them.

    Made by ``Client.epoch`` and ``Loader.epoch``.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        request: EpochRequest,
        *,
        access: Access,
        stall_seconds: float,
        retries: int,
        prefetch: Optional[int],
        shared_memory: bool = True,
        patient: bool = True,
        expected: Optional[Dict[str, str]] = None,
    ) -> None:
        self._addresses = list(addresses)
        self._request = request
        self._access = access
        self._stall_seconds = stall_seconds
        self._retries = retries
        # A codec is for networks; the server would not compress into shared memory.
        shared = shared_memory and request.codec is None
        ahead = PREFETCH_BATCHES if prefetch is None else prefetch
        self._memory_batches = ahead + MEMORY_BATCHES_LOOP if shared else 0
        self._counters = Counters()
        self._waited_seconds = 0.0
        self._closed = False
        # One thread at a time takes a batch.
        self._lock = threading.RLock()
        self._source: Union[Prefetch, Direct, None] = None
        self._stop: Optional[weakref.finalize] = None
        self.progress = Progress(request)

        reader = self._reader(0, 0)
        reader.open(patient)
        assert reader.schema is not None and reader.metadata is not None
        self._replica = reader.replica
        self._schema, self._metadata = reader.schema, reader.metadata
        self.progress.metadata = self._metadata
        try:
            self._depth = self._default_depth(reader) if prefetch is None else prefetch
            for key, digest in (expected or {}).items():
                if getattr(self._metadata, key) != digest:
                    source = str(addresses[reader.replica % len(addresses)])
                    raise ChangedError(source, f"pba.{key}", getattr(self._metadata, key), digest)
        except BaseException:
            reader.drop()
            raise
        self._start(reader)

    def _default_depth(self, reader: Reader) -> int:
        if not reader.is_near or self._request.codec is not None:
            return PREFETCH_BATCHES
        epoch_bytes = self._metadata.rows * math.prod(image_shape(self._schema))
        return PREFETCH_BATCHES if epoch_bytes > DIRECT_BYTES_MAX * self._metadata.batches else 0

    def _reader(self, received: int, replica: int) -> Reader:
        return Reader(
            self._addresses,
            self._request,
            self._counters,
            access=self._access,
            stall_seconds=self._stall_seconds,
            retries=self._retries,
            memory_batches=self._memory_batches,
            replica=replica,
            received=received,
        )

    def _start(self, reader: Reader) -> None:
        self._forks = _source.forks
        # Shared memory is ahead of the loop without a thread: the server fills the slots.
        threaded = self._depth > 0 and not reader.shares_memory
        source = Prefetch(reader, self._counters, self._depth) if threaded else Direct(reader, self._lock)
        self._source = source
        # Runs when the epoch is collected, and at exit of the interpreter.
        self._stop = weakref.finalize(self, stop, os.getpid(), source)

    def _restart(self) -> None:
        """Continues at the loop's position, on a new connection."""
        self._end_source()
        reader = self._reader(self.progress.received, self._replica)
        reader.schema, reader.metadata = self._schema, self._metadata
        self._start(reader)

    def _end_source(self) -> None:
        source_stop, self._stop, self._source = self._stop, None, None
        if source_stop is not None:
            source_stop()

    @property
    def schema(self) -> pa.Schema:
        """Schema of the stream, with the server's metadata."""
        return self._schema

    @property
    def metadata(self) -> Metadata:
        """The server's metadata, parsed."""
        return self._metadata

    @property
    def received(self) -> int:
        """Batches that the loop has taken."""
        return self.progress.received

    @property
    def shares_memory(self) -> bool:
        """Whether batches currently come through shared memory."""
        return self._source is not None and self._source.shares_memory

    @property
    def resumes(self) -> int:
        """Attempts to resume after a cut."""
        return self._counters.resumes

    @property
    def bytes(self) -> int:
        """Bytes received, without HTTP's framing."""
        return self._counters.bytes

    @property
    def waited_seconds(self) -> float:
        """How long the loop waited for batches: the server or the network is too slow."""
        return self._waited_seconds

    @property
    def server_waited_seconds(self) -> float:
        """How long batches waited for the loop: the loop is too slow. 0 without prefetch."""
        return self._counters.server_waited_seconds

    def __len__(self) -> int:
        """Total batches of the answer, whether taken or not."""
        return self._metadata.batches

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            CutError: when the stream was cut and could not be resumed.
            ChangedError: when a server resumes with other data.
            RefusedError: when a server refuses to resume.
            StreamError: when a server does not send the promised stream.
        """
        if self._forks != _source.forks:
            # The thread that held it at the fork is not in this process.
            self._lock = threading.RLock()
        with self._lock:
            expected = self.progress.received
            if self._source is None or self._closed or self._forks != _source.forks:
                self._open_again(expected)
            item = self._take()
            if item is None or isinstance(item, BaseException) or item[0] != expected:
                item = self._settle(item, expected)
            self.progress.received = expected + 1
            batch = item[1]
            batch.number = self._request.number(expected)
            return batch

    def _open_again(self, expected: int) -> None:
        if expected == len(self):
            raise StopIteration
        if self._closed:
            raise ValueError(f"the epoch was closed after {expected} of {len(self)} batches")
        self._restart()

    def _settle(self, item: Item, expected: int) -> Tuple[int, Batch]:
        """Handles anything other than the expected batch."""
        if expected < len(self) and not isinstance(item, BaseException):
            # An interrupt (Ctrl-C) took a batch between the queue and the loop: fetch it again.
            self._restart()
            item = self._take()
        if isinstance(item, tuple):
            return item
        # At the end as well: it was read, so that the server counts the epoch as complete.
        self._end_source()
        if item is None:
            raise StopIteration
        raise item

    def _take(self) -> Item:
        # Another thread may close the epoch at any moment.
        source = self._source
        if source is None:
            raise ValueError(f"the epoch was closed after {self.received} of {len(self)} batches")
        before = time.perf_counter()
        try:
            return source.next()
        finally:
            self._waited_seconds += time.perf_counter() - before

    def state_dict(self) -> Dict[str, Any]:
        """The position after the batches that the loop has taken, for a checkpoint.

        Batches that were fetched ahead do not count. It can be written as JSON.
        """
        return self.progress.state()

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Goes to a saved position of the same request, forwards or backwards.

        Raises:
            ValueError: when the position belongs to another request, or is not in this epoch.
            ChangedError: when the dataset or the schedule has changed.
        """
        check_state(state)
        check_same(state["request"], self._request.state())
        source = ", ".join(map(str, self._addresses))
        for key in ("dataset", "schedule"):
            saved = state.get(f"{key}_digest")
            if saved is not None and saved != getattr(self._metadata, key):
                raise ChangedError(source, f"pba.{key}", getattr(self._metadata, key), saved)
        received, rest = divmod(int(state["batch"]) - self._request.start, self._request.step)
        if rest or not 0 <= received <= len(self):
            raise ValueError(f"batch {state['batch']} is not one of this epoch's {len(self)}")
        if self._closed:
            raise ValueError("the epoch is closed")
        self._end_source()
        self.progress.received = received

    def read_all(self) -> pa.Table:
        """The rest of the epoch as one table."""
        batches: List[pa.RecordBatch] = [batch.record_batch for batch in self]
        return pa.Table.from_batches(batches, self._schema)

    def close(self) -> None:
        """Ends the stream; the server notices at once. May be called twice, and by any thread."""
        self._closed = True
        self._end_source()

    def __enter__(self) -> Epoch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Epoch {self._metadata.epoch} of {self._request.dataset!r}: "
            f"{self.received} of {len(self)} batches>"
        )
