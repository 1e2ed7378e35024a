"""A stream of one epoch."""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
import time
import weakref
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Set, Union

import pyarrow as pa

from ._batch import Batch
from ._errors import PbaError
from ._http import Access
from ._metadata import Metadata
from ._progress import Progress, check_state
from ._reader import PREFETCH_BATCHES, Reader
from ._request import EpochRequest
from ._source import Direct, Item, Prefetch

# A batch of up to this size from the same machine is read in less time than a thread takes to hand it
# over, while the kernel and the server hold the next ones.
DIRECT_BYTES_MAX = 1024 * 1024
# A loop that waits this long for the batches of an epoch, and this part of its time, is told of.
WAIT_SECONDS = 5.0
WAIT_SHARE = 0.1

_LOG = logging.getLogger("pba_client")


def check_expected(access: Access, progress: Progress, expected: Metadata) -> None:
    """Refuses another dataset, schedule or recipe than expected, with a ``ChangedError``."""
    source, found = str(access.addresses[progress.replica % len(access.addresses)]), progress.metadata
    assert found is not None
    access.check_same(source, "pba.dataset", found.dataset, expected.dataset)
    access.check_same(source, "pba.schedule", found.schedule, expected.schedule)
    access.check_same(source, "pba.recipe", found.recipe, expected.recipe)


def compare_replica(access: Access, request: EpochRequest, expected: Metadata, replica: int) -> None:
    """Asks one replica once whether it would send the same.

    Raises:
        ChangedError: when it would not.
        PbaError: when it does not answer.
    """
    progress = Progress(request, replica=replica)
    reader = Reader(access, progress)
    try:
        reader.connect()
    finally:
        reader.drop()
    check_expected(access, progress, expected)


class Remarks:
    """Says who waits for whom, the trainer or the server: each once, in the process that made the client.

    The loop in a DataLoader's worker is not the trainer's, and would be told of again in each epoch.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._said: Set[int] = set()

    def judge(self, epoch: Epoch, seconds: float) -> None:
        """Looks at an epoch that was read to its end in some time."""
        waited = epoch.waited_seconds
        if waited >= WAIT_SECONDS and waited >= WAIT_SHARE * seconds:
            level, verdict = logging.WARNING, (
                "the server or the network is too slow; with headspace=True a Loader shows how fast the loop would be"
            )
        elif seconds - waited >= WAIT_SECONDS and waited < WAIT_SHARE * seconds:
            level, verdict = logging.INFO, "the loop is what takes the time, and the server waited for it"
        else:
            return
        # What an outage cost has been said, and is no verdict.
        if level in self._said or epoch.resumes or os.getpid() != self._process:
            return
        self._said.add(level)
        _LOG.log(
            level,
            "epoch %d: the loop waited %.1f s of %.1f s (%.0f %%) for batches: %s",
            *(epoch.metadata.epoch, waited, seconds, 100 * waited / seconds, verdict),
        )


class Epoch(Iterator[Batch], ContextManager["Epoch"]):
    """Batches of one epoch, in order, each exactly once.

    An iterator and a context manager: end it with ``close()``, with ``with``, or by dropping the
    last reference to it. A stream that is cut resumes at the next batch, on the next of the
    client's servers. After an error it keeps its position, and ``next()`` tries again. Threads may
    share it: each batch goes to one of them.

    Made by ``Client.epoch`` and ``Loader.epoch``.

    Attributes:
        schema: schema of the stream, with the server's metadata.
        metadata: the server's metadata, parsed.
        waited_seconds: how long the loop waited for batches: the server or the network is too slow.
    """

    def __init__(
        self,
        access: Access,
        request: EpochRequest,
        reached: bool,
        expected: Optional[Metadata],
        replica: int,
        remarks: Optional[Remarks] = None,
    ) -> None:
        self._access = access
        self._request = request
        self._closed = False
        # One thread at a time takes a batch.
        self._lock = threading.RLock()
        self.waited_seconds = 0.0
        self._remarks = remarks
        # When the loop asked for the first batch.
        self._began: Optional[float] = None
        # The table that has taken batches, of which a second one would hold the rest only.
        self._table: Optional[object] = None
        self.progress = progress = Progress(request, replica=replica)
        reader = Reader(access, progress)
        reader.open(reached)
        assert progress.schema is not None and progress.metadata is not None
        self.schema: pa.Schema = progress.schema
        self.metadata: Metadata = progress.metadata
        try:
            if expected is not None:
                check_expected(access, progress, expected)
            self._depth = self._default_depth(reader) if access.prefetch is None else access.prefetch
        except BaseException:
            reader.drop()
            raise
        self._start(reader)
        _EPOCHS.add(self)

    def _default_depth(self, reader: Reader) -> int:
        image_bytes = math.prod(self.schema.field("image").type.shape)
        small = self.metadata.rows * image_bytes <= DIRECT_BYTES_MAX * self.metadata.batches
        near = reader.response is not None and reader.response.is_near
        return 0 if near and small and self._request.codec is None else PREFETCH_BATCHES

    def _start(self, reader: Reader) -> Union[Prefetch, Direct]:
        # Shared memory is ahead of the loop without a thread: the server fills the slots.
        threaded = self._depth > 0 and not reader.shares_memory
        source = Prefetch(reader, self.progress, self._depth) if threaded else Direct(reader, self._lock)
        self._source: Union[Prefetch, Direct, None] = source
        # Runs when the epoch is collected, and at exit of the interpreter.
        self._stop: Optional[weakref.finalize] = weakref.finalize(self, source.stop)
        return source

    def _restart(self) -> Union[Prefetch, Direct]:
        """Continues at the loop's position, on a new connection."""
        self._check_goes_on()
        self._end_source()
        return self._start(Reader(self._access, self.progress))

    def _check_goes_on(self) -> None:
        if self.received == len(self):
            raise StopIteration
        if self._closed:
            raise ValueError(f"the epoch was closed after {self.received} of {len(self)} batches")

    def _end_source(self) -> None:
        source_stop, self._stop, self._source = self._stop, None, None
        if source_stop is not None:
            source_stop()

    def _leave_to_parent(self) -> None:
        """In a process that was forked off: it reads on a connection of its own."""
        # The thread that held it at the fork is not in this process.
        self._lock = threading.RLock()
        if self._stop is not None:
            self._stop.detach()
            self._stop = None

    @property
    def received(self) -> int:
        """Batches that the loop has taken."""
        return self.progress.received

    @property
    def shares_memory(self) -> bool:
        """Whether batches currently come through shared memory."""
        source = self._source
        return source is not None and source.reader.shares_memory

    @property
    def resumes(self) -> int:
        """Attempts to resume after a cut."""
        return self.progress.resumes

    @property
    def bytes(self) -> int:
        """Bytes received, without HTTP's framing."""
        return self.progress.bytes

    @property
    def server_waited_seconds(self) -> float:
        """How long batches waited for the loop: the loop is too slow. 0 without prefetch."""
        return self.progress.server_waited_seconds

    def __len__(self) -> int:
        """Total batches of the answer, whether taken or not."""
        return self.metadata.batches

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            CutError: when the stream was cut and could not be resumed.
            ChangedError: when a server resumes with other data.
            RefusedError: when a server refuses to resume.
            StreamError: when a server does not send the promised stream.
        """
        with self._lock:
            expected = self.progress.received
            received, batch = self._take()
            if received != expected:
                # An interrupt (Ctrl-C) took a batch between the source and the loop: fetch it again.
                self._end_source()
                received, batch = self._take()
            if batch is None or isinstance(batch, BaseException):
                # At the end as well: it was read, so that the server counts the epoch as complete.
                self._end_source()
                if batch is None and self._remarks is not None and self._began is not None:
                    self._remarks.judge(self, time.perf_counter() - self._began)
                raise StopIteration if batch is None else batch
            self.progress.received = expected + 1
            batch.number = self._request.number(expected)
            return batch

    def _take(self) -> Item:
        # Another thread may close the epoch at any moment.
        source = self._source
        if source is None or self._stop is None or self._closed:
            source = self._restart()
        before = time.perf_counter()
        self._began = before if self._began is None else self._began
        try:
            return source.next()
        finally:
            self.waited_seconds += time.perf_counter() - before

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
        check_state(state, self._request.state(), self.metadata, self._access)
        received, rest = divmod(int(state["batch"]) - self._request.start, self._request.step)
        if rest or not 0 <= received <= len(self):
            raise ValueError(f"batch {state['batch']} is not one of this epoch's {len(self)}")
        if self._closed:
            raise ValueError("the epoch is closed")
        self._end_source()
        self.progress.received = received
        # A table that begins here holds what was asked for.
        self._table = None

    def read_all(self) -> pa.Table:
        """The rest of the epoch as one table.

        Raises:
            ValueError: when another table has taken batches already, as one that failed in the middle: this one
                would be short.
            CutError, ChangedError, RefusedError, StreamError: as by ``next()``.
        """
        table = object()
        self._check_table(table)
        batches: List[pa.RecordBatch] = []
        while True:
            try:
                batches.append(self._next_of(table).record_batch)
            except StopIteration:
                return pa.Table.from_batches(batches, self.schema)

    def _next_of(self, table: object) -> Batch:
        """The next batch, for a table that holds all that is left."""
        with self._lock:
            self._check_table(table)
            before, received = self._table, self.received
            # First, so that an interrupt comes too late to lose a batch unnoticed.
            self._table = table
            try:
                return next(self)
            except BaseException:
                if self.received == received:
                    self._table = before
                raise

    def _check_table(self, table: object) -> None:
        if self._table is not None and self._table is not table:
            raise ValueError(
                f"another table was made of this epoch, to which some of its first {self.received} of {len(self)} "
                "batches went, and a second table would lack those; open the epoch again"
            )

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The rest of the epoch as a stream of Arrow's C interface, a ``PyCapsule``, for other libraries:
        ``pyarrow.RecordBatchReader.from_stream(epoch)``, ``polars.DataFrame(epoch)`` and so on.

        Each batch is read when it is asked for, and is not copied. An error is one of the stream, whenever it is
        asked again, and never an early end.

        Args:
            requested_schema: as the interface has it, a schema in which the reader would like the batches.

        Raises:
            ValueError: when nothing is left, or another table has taken batches already: this one would be short.
        """
        if self.received == len(self) > 0:
            raise ValueError(f"the epoch was read to its end, all {len(self)} batches; open it again")
        self._check_table(None)
        batches = _RecordBatches(self)
        return pa.RecordBatchReader.from_batches(self.schema, batches).__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """Ends the stream; the server notices at once. May be called twice, and by any thread."""
        self._closed = True
        self._end_source()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Epoch {self.metadata.epoch} of {self._request.dataset!r}: "
            f"{self.received} of {len(self)} batches>"
        )


class _RecordBatches(Iterator[pa.RecordBatch]):
    """What is read of an epoch; after an error, nothing but that error."""

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        # Of the epoch, after the last batch that came from here.
        self._received: Optional[int] = None
        self._error: Optional[BaseException] = None

    def __next__(self) -> pa.RecordBatch:
        if self._error is not None:
            raise self._error
        try:
            if self._received not in (None, self._epoch.received):
                raise ValueError(
                    f"the epoch was after {self._received} batches when this table had its last one, and is after "
                    f"{self._epoch.received} now: a loop has taken batches meanwhile, or a state was loaded, and the table "
                    "would be another; open the epoch again"
                )
            batch = self._epoch._next_of(self)
            self._received = self._epoch.received
            return batch.record_batch
        except StopIteration:
            raise
        except BaseException as error:
            # Without the traceback, which would hold the memory of a batch.
            self._error = error.with_traceback(None)
            raise


class Headspace(Epoch):
    """The first batch of an epoch as often as that has batches: what a perfect loader would give.

    It is opened with a request for that batch alone, of which nothing else is sent.
    """

    def __init__(
        self,
        access: Access,
        request: EpochRequest,
        reached: bool,
        expected: Optional[Metadata],
        replica: int,
        batches: int,
    ) -> None:
        self._whole = request
        self._first: Optional[Batch] = None
        self._taken = 0
        first = copy.copy(request)
        # Steps over all others.
        first.step = request.step * max(batches, 1)
        super().__init__(access, first, reached, expected, replica)
        one = self.metadata
        self.metadata = one._replace(batches=one.batches * batches, rows=one.rows * batches)

    @property
    def received(self) -> int:
        return self._taken

    def __next__(self) -> Batch:
        with self._lock:
            self._check_goes_on()
            if self._first is None:
                self._first = super().__next__()
                self._end_source()
            batch = copy.copy(self._first)
            batch.number = self._whole.number(self._taken)
            self._taken += 1
            return batch

    def state_dict(self) -> Dict[str, Any]:
        raise PbaError("an epoch with headspace=True has no position: it repeats its first batch")

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        self.state_dict()


_EPOCHS: weakref.WeakSet[Epoch] = weakref.WeakSet()


def _forked() -> None:
    for epoch in list(_EPOCHS):
        epoch._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
