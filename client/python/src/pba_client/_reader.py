"""The batches of an epoch in order, over however many connections it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Optional, Sequence, TypeVar, Union

import pyarrow as pa

from ._errors import ChangedError, CutError, PbaError, RefusedError, StreamError, UnreachableError
from ._http import Address, Canceller, ConnectError, Response, check_success
from ._ipc import MessageReader
from ._metadata import Metadata
from ._request import ARROW_STREAM, EpochRequest

# Pause before the second attempt in a row; doubled each time.
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 10.0
# A server that asks for more patience than this gets this much.
RETRY_AFTER_SECONDS_MAX = 60.0
# Full, shutting down, or a proxy whose server is away: another attempt may do.
STATUS_RETRIED = (429, 502, 503, 504)

if TYPE_CHECKING:
    from ._memory import MemoryReader

_T = TypeVar("_T")


class Connection:
    """One answer of one server, from its schema on."""

    def __init__(
        self,
        address: Address,
        request: EpochRequest,
        received: int,
        stall_seconds: float,
        canceller: Canceller,
        memory_batches: int,
    ) -> None:
        self.address = address
        self._messages: Union[MessageReader, MemoryReader, None] = None
        self._response = Response(
            address,
            request.target(received),
            accept=request.accept(),
            stall_seconds=stall_seconds,
            canceller=canceller,
            memory_batches=memory_batches,
        )
        try:
            check_success(self._response)
            self.shares_memory = self._response.shares_memory
            content_type = self._response.headers.get("content-type", "")
            if self.shares_memory:
                self._messages = _memory_reader(self._response)
            elif content_type.startswith(ARROW_STREAM):
                self._messages = MessageReader(self._response)
            else:
                raise RefusedError(200, f"{address} answered {content_type!r}, which is no epoch")
            message = self._messages.next()
            if message is None or message.type != "schema":
                raise StreamError("it does not begin with a schema")
            try:
                self.schema = pa.ipc.read_schema(message)
            except pa.ArrowException as error:
                raise StreamError(f"its schema is broken: {error}") from error
            self.metadata = Metadata.of(self.schema)
        except BaseException:
            self.close()
            raise

    def next(self) -> Optional[pa.RecordBatch]:
        """The next batch; none at the end of the stream."""
        assert self._messages is not None
        message = self._messages.next()
        if message is None:
            return None
        if message.type != "record batch":
            raise StreamError(f"it holds a {message.type} where a batch should be")
        try:
            return pa.ipc.read_record_batch(message, self.schema)
        except (pa.ArrowException, OSError) as error:
            raise StreamError(f"a batch is broken: {error}") from error

    @property
    def bytes(self) -> int:
        return self._response.bytes

    def close(self) -> None:
        if self._messages is not None:
            self._messages.close()
        self._response.close()


def _memory_reader(response: Response) -> MemoryReader:
    # Linux alone has what it needs, and alone is answered so.
    from ._memory import MemoryReader

    return MemoryReader(response)


class Counters:
    """What happened to an epoch so far; written by the thread that reads."""

    def __init__(self) -> None:
        self.resumes = 0
        self.bytes = 0
        self.server_waited_seconds = 0.0


class Reader:
    """Reads the batches of an epoch in order, each exactly once, over whatever cuts it.

    Knows nothing of threads, except that ``canceller`` may be stopped by another one.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        request: EpochRequest,
        counters: Counters,
        *,
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
        self._stall_seconds = stall_seconds
        self._retries = retries
        self.replica = replica
        self.received = received
        self._connection: Optional[Connection] = None
        self._bytes_booked = 0
        # Of the whole answer; known once a server has answered.
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

    def next(self) -> Optional[pa.RecordBatch]:
        """The next batch; none when all that were announced have come."""
        assert self.metadata is not None
        if self.received == self.metadata.batches:
            self._finish()
            return None
        batch = self._persist(self._read)
        self.received += 1
        return batch

    def _persist(self, attempt: Callable[[], _T], patient: bool = True) -> _T:
        """Repeats an attempt until it succeeds, or fails for good."""
        attempts = 0
        while True:
            retry_after = 0.0
            try:
                return attempt()
            except RefusedError as error:
                failure: PbaError = error
                self.drop()
                if error.status not in STATUS_RETRIED:
                    raise
                retry_after = min(error.retry_after or 0.0, RETRY_AFTER_SECONDS_MAX)
            except (UnreachableError, StreamError) as error:
                failure = error
                self.drop()
            except BaseException:
                # Interrupted in the middle of a message: what follows on it cannot be read.
                self.drop()
                raise
            if self.canceller.stopped:
                raise failure
            attempts += 1
            hopeless = isinstance(failure, ConnectError) and not patient
            # So many rounds: naming more replicas never means less patience.
            attempts_max = self._retries * len(self._addresses)
            if attempts > attempts_max or (hopeless and attempts >= len(self._addresses)):
                if self.schema is None or isinstance(failure, RefusedError):
                    raise failure
                expected = self.metadata.batches if self.metadata else 0
                raise CutError(self.received, expected, attempts_max, str(failure)) from failure
            if self.schema is not None:
                self._counters.resumes += 1
            self.replica += 1
            # Each replica is tried once without a pause, and so is a single one that cut a stream.
            rounds = attempts // len(self._addresses)
            if attempts % len(self._addresses) == 0:
                pause = PAUSE_SECONDS * 2 ** (rounds - 2) if rounds > 1 else 0.0
                self.canceller.pause(max(min(pause, PAUSE_SECONDS_MAX), retry_after))

    def _connect(self) -> None:
        """Asks the current replica for what is missing, and checks that it is the same data."""
        address = self._addresses[self.replica % len(self._addresses)]
        connection = Connection(
            address,
            self._request,
            self.received,
            self._stall_seconds,
            self.canceller,
            self._memory_batches,
        )
        self._connection = connection
        self._bytes_booked = 0
        if self.schema is None or self.metadata is None:
            self.schema, self.metadata = connection.schema, connection.metadata
            return
        found, expected = connection.metadata, self.metadata
        for key in ("dataset", "schedule"):
            if getattr(found, key) != getattr(expected, key):
                raise ChangedError(
                    str(address), f"pba.{key}", getattr(found, key), getattr(expected, key)
                )
        if not connection.schema.equals(self.schema, check_metadata=False):
            raise ChangedError(str(address), "schema", str(connection.schema), str(self.schema))
        if self.received + found.batches != expected.batches:
            missing = expected.batches - self.received
            raise ChangedError(str(address), "pba.batches", str(found.batches), str(missing))

    def _read(self) -> pa.RecordBatch:
        if self._connection is None:
            self._connect()
        assert self._connection is not None and self.metadata is not None
        batch = self._connection.next()
        self._book()
        if batch is None:
            raise StreamError(f"it ended after {self.received} of {self.metadata.batches} batches")
        return batch

    def _finish(self) -> None:
        """Reads the end of the stream.

        A cut that comes after the last batch has taken nothing, so that nothing is asked for
        again; but a batch too many is not what was promised.
        """
        if self._connection is None:
            return
        try:
            surplus = self._connection.next()
            self._book()
        except StreamError:
            surplus = None
        finally:
            self.drop()
        if surplus is not None:
            assert self.metadata is not None
            raise StreamError(f"it holds more than the {self.metadata.batches} batches announced")

    def _book(self) -> None:
        assert self._connection is not None
        self._counters.bytes += self._connection.bytes - self._bytes_booked
        self._bytes_booked = self._connection.bytes

    def drop(self) -> None:
        """Ends the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
