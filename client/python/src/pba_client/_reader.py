"""The batches of an epoch in order, over any number of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional, Sequence, TypeVar, Union

import pyarrow as pa

from ._address import Address
from ._batch import Batch
from ._errors import ChangedError, CutError, PbaError, RefusedError, StreamError, UnreachableError
from ._http import Access, Canceller, ConnectError, Eof, Response, StallError, UntrustedError
from ._ipc import Counters, StreamReader
from ._metadata import Metadata, check_columns
from ._request import ARROW_STREAM, EpochRequest

# Pause before the second attempt in a row; doubled each time.
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 10.0
# Longest pause that a server can ask for.
RETRY_AFTER_SECONDS_MAX = 60.0
# Full, shutting down, or a proxy whose server is down: another attempt may succeed.
STATUS_RETRIED = (429, 502, 503, 504)

if TYPE_CHECKING:
    from ._shared_memory import SharedMemoryReader

_T = TypeVar("_T")


def pause_seconds(failures: int, retry_after: Optional[float]) -> float:
    """How long to wait after a number of failures before the last one: longer each time, and at least
    as long as the server asks for."""
    pause = PAUSE_SECONDS * 2 ** (failures - 1) if failures > 0 else 0.0
    return max(min(pause, PAUSE_SECONDS_MAX), min(retry_after or 0.0, RETRY_AFTER_SECONDS_MAX))


class Connection:
    """One answer of one server, from its schema on.

    Attributes:
        next: returns the next batch; none at the end of the stream.
    """

    def __init__(self, response: Response, counters: Counters) -> None:
        self._response = response
        self._stream: Union[StreamReader, SharedMemoryReader, None] = None
        try:
            response.check()
            self.shares_memory = response.shares_memory
            self.is_near = response.is_near
            content_type = response.headers.get("content-type", "")
            if self.shares_memory:
                self._stream = _memory_reader(response, counters)
            elif content_type.startswith(ARROW_STREAM):
                self._stream = StreamReader(response, counters)
            else:
                shown = response.hide(content_type)
                raise RefusedError(200, f"{response.address} answered {shown!r}, which is not an epoch")
            self.next: Callable[[], Optional[Batch]] = self._stream.next
            self.schema = self._stream.schema
            # Of the answer, so far.
            self.rows = self.batches = 0
            try:
                self.metadata = Metadata.of(self.schema)
                check_columns(self.schema)
            except StreamError as error:
                # Without its cause, which shows what the server sent.
                raise StreamError(response.hide(str(error))) from None
            if self.metadata.rows and not self.metadata.batches:
                raise StreamError(f"it announces {self.metadata.rows} rows but no batches")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._response.close()


def _memory_reader(response: Response, counters: Counters) -> SharedMemoryReader:
    # Imported only on Linux, which has what it needs.
    from ._shared_memory import SharedMemoryReader

    return SharedMemoryReader(response, counters)


class Reader:
    """Reads the batches of an epoch in order, each exactly once, despite cuts.

    It is not thread-safe, except that another thread may stop ``canceller``.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        request: EpochRequest,
        counters: Counters,
        *,
        access: Access,
        stall_seconds: float,
        retries: int,
        memory_batches: int,
        replica: int = 0,
        received: int = 0,
    ) -> None:
        self._memory_batches = memory_batches
        self.canceller = Canceller()
        self._addresses = addresses
        self._request = request
        self._counters = counters
        self._access = access
        self._stall_seconds = stall_seconds
        self._retries = retries
        self.replica = replica
        self.received = received
        # Of the batches received; not known where others received some of them.
        self.rows: Optional[int] = 0 if received == 0 else None
        self._connection: Optional[Connection] = None
        # Of the complete answer; known once a server has answered.
        self.schema: Optional[pa.Schema] = None
        self.metadata: Optional[Metadata] = None

    def open(self, patient: bool) -> None:
        """Connects for the first time and reads the schema.

        Args:
            patient: whether servers that accept no connection are expected to come back.

        Raises:
            RefusedError: when the server refuses the request.
            UnreachableError: when no server can be reached.
        """
        self._persist(self._connect, patient)

    @property
    def shares_memory(self) -> bool:
        """Whether the current connection is through shared memory."""
        return self._connection is not None and self._connection.shares_memory

    @property
    def is_near(self) -> bool:
        """Whether the current connection is to this machine, and in the clear."""
        return self._connection is not None and self._connection.is_near

    def next(self) -> Optional[Batch]:
        """The next batch; none when all announced batches have arrived."""
        assert self.metadata is not None
        if self.received == self.metadata.batches:
            self._finish()
            return None
        try:
            batch = self._read()
        except Exception as error:
            batch = self._persist(self._read, failed=error)
        except BaseException:
            # Interrupted in the middle of a message: the rest cannot be read.
            self.drop()
            raise
        self.received += 1
        if self.rows is not None:
            self.rows += len(batch)
        return batch

    def _persist(
        self,
        attempt: Callable[[], _T],
        patient: bool = True,
        failed: Optional[Exception] = None,
    ) -> _T:
        """Repeats an attempt, which may have failed once already, until it succeeds or fails for good."""
        # In total, and successive ones that another attempt would not help.
        attempts = hopeless = 0
        away: Optional[PbaError] = None
        while True:
            retry_after: Optional[float] = None
            try:
                if failed is not None:
                    error, failed = failed, None
                    raise error
                return attempt()
            except RefusedError as error:
                failure: PbaError = error
                self.drop()
                if error.status not in STATUS_RETRIED:
                    raise
                retry_after = error.retry_after
            except (UnreachableError, StreamError) as error:
                failure = error
                self.drop()
            except BaseException:
                # Interrupted in the middle of a message: the rest cannot be read.
                self.drop()
                raise
            if self.canceller.stopped:
                raise failure
            attempts += 1
            lasting = isinstance(failure, UntrustedError) or (isinstance(failure, ConnectError) and not patient)
            hopeless = hopeless + 1 if lasting else 0
            if isinstance(failure, UnreachableError) and lasting:
                failure = failure.after(away)
            away = failure if lasting else None
            # Counted in rounds: more replicas never mean fewer attempts at each.
            attempts_max = self._retries * len(self._addresses)
            if attempts > attempts_max or hopeless >= len(self._addresses):
                if self.schema is None or isinstance(failure, RefusedError):
                    raise failure
                expected = self.metadata.batches if self.metadata else 0
                attempts_made = min(attempts, attempts_max)
                raise CutError(self.received, expected, attempts_made, str(failure)) from failure
            if self.schema is not None:
                self._counters.resumes += 1
            self.replica += 1
            # Each replica is tried once without a pause, and so is a single one that cut a stream.
            rounds = attempts // len(self._addresses)
            if attempts % len(self._addresses) == 0:
                self.canceller.pause(pause_seconds(rounds - 1, retry_after))

    def _connect(self) -> None:
        """Requests the missing batches from the current replica, and checks that its data is the same."""
        address = self._addresses[self.replica % len(self._addresses)]
        response = Response(
            address,
            self._request.target(self.received),
            accept=self._request.accept(),
            access=self._access,
            stall_seconds=self._stall_seconds,
            canceller=self.canceller,
            memory_batches=self._memory_batches,
        )
        connection = Connection(response, self._counters)
        self._connection = connection
        for key in ("epoch", "seed"):
            asked = self._request.epoch if key == "epoch" else self._request.parameters.get("seed", "0")
            # The server understood it; "007" is 7.
            self._check(key, getattr(connection.metadata, key), int(asked))
        if self.schema is None or self.metadata is None:
            self.schema, self.metadata = connection.schema, connection.metadata
            return
        for key in ("dataset", "schedule"):
            self._check(key, getattr(connection.metadata, key), getattr(self.metadata, key))
        if not connection.schema.equals(self.schema, check_metadata=False):
            raise self._changed("schema", connection.schema, self.schema)
        self._check("batches", connection.metadata.batches, self.metadata.batches - self.received)
        if self.rows is not None:
            self._check("rows", connection.metadata.rows, self.metadata.rows - self.rows)

    def _check(self, key: str, found: object, expected: object) -> None:
        if found != expected:
            raise self._changed(f"pba.{key}", found, expected)

    def _changed(self, key: str, found: object, expected: object) -> ChangedError:
        address = self._addresses[self.replica % len(self._addresses)]
        return ChangedError(str(address), key, self._access.hide(str(found)), str(expected))

    def _read(self) -> Batch:
        if self._connection is None:
            self._connect()
        assert self._connection is not None and self.metadata is not None
        batch = self._connection.next()
        if batch is None:
            raise StreamError(f"it ended after {self.received} of {self.metadata.batches} batches")
        connection = self._connection
        connection.batches += 1
        connection.rows += len(batch)
        announced = connection.metadata
        if connection.batches == announced.batches and connection.rows != announced.rows:
            raise StreamError(f"it has {connection.rows} rows where {announced.rows} were announced")
        return batch

    def _finish(self) -> None:
        """Reads the end of the stream.

        A cut after the last batch loses nothing, so nothing is requested again; but an extra batch
        is an error.
        """
        if self._connection is None:
            return
        try:
            surplus = self._connection.next()
        except (Eof, StallError):
            surplus = None
        finally:
            self.drop()
        if surplus is not None:
            assert self.metadata is not None
            raise StreamError(f"it has more than the {self.metadata.batches} batches announced")

    def drop(self) -> None:
        """Ends the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
