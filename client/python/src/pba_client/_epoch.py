"""One epoch as it arrives."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import weakref
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

import numpy as np
import pyarrow as pa

from ._errors import ChangedError, CutError, PbaError, RefusedError, StreamError, UnreachableError
from ._http import Address, Canceller, ConnectError, Response, check_success
from ._ipc import MessageReader, writable_view
from ._request import ARROW_STREAM, EpochRequest, check_same

# Pause before the second attempt in a row; doubled each time.
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 10.0
# A server that asks for more patience than this gets this much.
RETRY_AFTER_SECONDS_MAX = 60.0
# Full, shutting down, or a proxy whose server is away: another attempt may do.
STATUS_RETRIED = (429, 502, 503, 504)
# A thread that is told to end does so at once, unless it waits for a connection.
JOIN_SECONDS = 2.0
# Batches in shared memory beyond those fetched ahead: the loop's own, the one before it while the
# loop goes on, and two that a trainer may still be copying to its device.
MEMORY_BATCHES_LOOP = 4
# In the state of an epoch, so that a later format can be told apart.
STATE_VERSION = 1

if TYPE_CHECKING:
    from ._memory import MemoryReader

_T = TypeVar("_T")
_UINT8 = np.dtype("u1")
_INT64 = np.dtype("<i8")
_UINT64 = np.dtype("<u8")


class Metadata(NamedTuple):
    """What a stream says about itself.

    Attributes:
        version: version of the server.
        dataset: digest of the dataset's split.
        schedule: digest of the schedule or policy, or ``none``, or ``identity``.
        epoch: epoch, 0-based.
        seed: seed of every random decision.
        batches: how many batches the answer holds.
        rows: how many images the answer holds.
        mean: mean per channel, 0..1; of the training split where there is one.
        std: standard deviation per channel, 0..1; likewise.
        classes: class names, by label.
    """

    version: str
    dataset: str
    schedule: str
    epoch: int
    seed: int
    batches: int
    rows: int
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    classes: Tuple[str, ...]

    @classmethod
    def of(cls, schema: pa.Schema) -> Metadata:
        """Reads the metadata of a stream's schema.

        Raises:
            StreamError: when something is missing or not what it should be.
        """
        pairs = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        try:
            return cls(
                version=pairs["pba.version"],
                dataset=pairs["pba.dataset"],
                schedule=pairs["pba.schedule"],
                epoch=int(pairs["pba.epoch"]),
                seed=int(pairs["pba.seed"]),
                batches=int(pairs["pba.batches"]),
                rows=int(pairs["pba.rows"]),
                mean=tuple(json.loads(pairs["pba.mean"])),
                std=tuple(json.loads(pairs["pba.std"])),
                classes=tuple(json.loads(pairs["pba.classes"])),
            )
        except KeyError as error:
            raise StreamError(f"its schema does not say {error.args[0]}") from error
        except (ValueError, TypeError) as error:
            raise StreamError(f"its schema is not a PBA server's: {error}") from error


class Batch:
    """Some images with their labels.

    The arrays are views into the memory that the batch was received in: nothing is copied.
    They may be written to; ``record_batch`` shows what was written. The memory lives as long as
    the batch or any array of it.

    Attributes:
        number: number of the batch in its shard of the epoch.
        record_batch: the same as a ``pyarrow.RecordBatch``, whose column ``image`` is a
            ``pyarrow.FixedShapeTensorArray``.
    """

    __slots__ = ("_image", "number", "record_batch")

    def __init__(self, number: int, record_batch: pa.RecordBatch) -> None:
        self.number = number
        self.record_batch = record_batch
        self._image: Optional[np.ndarray] = None

    def __len__(self) -> int:
        """Images of the batch."""
        return self.record_batch.num_rows

    @property
    def image(self) -> np.ndarray:
        """Pixels: uint8 [N, H, W, 3], RGB."""
        if self._image is None:
            column = self.record_batch.column(0)
            shape = (len(column), *column.type.shape)
            # A received column begins where its buffer does, so its values need no slicing.
            self._image = writable_view(column.storage.values, _UINT8, shape)
        return self._image

    @property
    def label(self) -> np.ndarray:
        """Classes: int64 [N]."""
        return writable_view(self.record_batch.column(1), _INT64, (len(self),))

    @property
    def index(self) -> np.ndarray:
        """Positions in the dataset: uint64 [N]."""
        return writable_view(self.record_batch.column(2), _UINT64, (len(self),))

    @property
    def table(self) -> pa.Table:
        """The same as a ``pyarrow.Table``."""
        return pa.Table.from_batches([self.record_batch])

    def __repr__(self) -> str:
        return f"<Batch {self.number}: {len(self)} images of {'x'.join(map(str, self.image.shape[1:]))}>"


class _Connection:
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


class _Counters:
    """What happened to an epoch so far; written by the thread that reads."""

    def __init__(self) -> None:
        self.resumes = 0
        self.bytes = 0
        self.server_waited_seconds = 0.0


class _Reader:
    """Reads the batches of an epoch in order, each exactly once, over whatever cuts it.

    Knows nothing of threads, except that ``canceller`` may be stopped by another one.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        request: EpochRequest,
        counters: _Counters,
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
        self._connection: Optional[_Connection] = None
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
            if attempts > self._retries or (hopeless and attempts >= len(self._addresses)):
                if self.schema is None or isinstance(failure, RefusedError):
                    raise failure
                expected = self.metadata.batches if self.metadata else 0
                raise CutError(self.received, expected, self._retries, str(failure)) from failure
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
        connection = _Connection(
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


# What goes through the queue: a batch with the count of batches before it, an error, or the end.
_Item = Union[Tuple[int, pa.RecordBatch], BaseException, None]


class _Prefetch:
    """A thread that reads ahead of a loop, by at most ``depth`` batches.

    Two queues written in C carry batches one way and permits the other way: the thread takes a
    permit for each batch, so it holds no more than there are permits.
    """

    def __init__(self, reader: _Reader, counters: _Counters, depth: int) -> None:
        self._reader = reader
        self._batches: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(depth):
            self._permits.put(True)
        # Refers to none of what refers to it, so that an epoch nobody holds is collected.
        self._thread = threading.Thread(
            target=_prefetch,
            args=(reader, counters, self._batches, self._permits),
            name="pba-client-prefetch",
            daemon=True,
        )
        self._thread.start()

    # Where memory is shared, nothing has to be fetched ahead.
    shares_memory = False

    def next(self) -> _Item:
        try:
            return self._batches.get()
        finally:
            # Given back whatever interrupts, or the thread would wait for it for ever.
            self._permits.put(True)

    def stop(self) -> None:
        self._permits.put(False)
        self._reader.canceller.stop()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)


def _prefetch(
    reader: _Reader,
    counters: _Counters,
    batches: "queue.SimpleQueue[_Item]",
    permits: "queue.SimpleQueue[bool]",
) -> None:
    try:
        while True:
            before = time.perf_counter()
            if not permits.get():
                return
            counters.server_waited_seconds += time.perf_counter() - before
            received = reader.received
            batch = reader.next()
            if batch is None:
                batches.put(None)
                return
            batches.put((received, batch))
            del batch  # it is the loop's now, and must not live until the next one is read
    except BaseException as error:
        batches.put(error)
    finally:
        reader.drop()


class _Direct:
    """Reads in the loop's own thread."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    @property
    def shares_memory(self) -> bool:
        return self._reader.shares_memory

    def next(self) -> _Item:
        received = self._reader.received
        batch = self._reader.next()
        return None if batch is None else (received, batch)

    def stop(self) -> None:
        self._reader.canceller.stop()
        self._reader.drop()


def _stop(pid: int, source: Union[_Prefetch, _Direct]) -> None:
    # The connection of a process that was forked off is still its parent's.
    if os.getpid() == pid:
        source.stop()


class Progress:
    """How far an epoch has come, for whoever outlives it."""

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

    An iterator, a context manager, and a file-like thing: end it with ``close()``, with ``with``,
    or by letting go of it. A stream that is cut continues at the next batch, on the next of the
    client's servers. After an error the position is kept, and ``next()`` tries again.

    Made by ``Client.epoch`` and ``Loader.epoch``.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        request: EpochRequest,
        *,
        stall_seconds: float,
        retries: int,
        prefetch: int,
        shared_memory: bool = True,
        patient: bool = True,
        expected: Optional[Dict[str, str]] = None,
    ) -> None:
        self._addresses = list(addresses)
        self._request = request
        self._stall_seconds = stall_seconds
        self._retries = retries
        self._depth = prefetch
        # A codec is for networks; the server would not compress into shared memory.
        shared = shared_memory and request.codec is None
        self._memory_batches = prefetch + MEMORY_BATCHES_LOOP if shared else 0
        self._counters = _Counters()
        self._waited_seconds = 0.0
        self._closed = False
        self._source: Union[_Prefetch, _Direct, None] = None
        self._stop: Optional[weakref.finalize] = None
        self.progress = Progress(request)

        reader = self._reader(0, 0)
        reader.open(patient)
        assert reader.schema is not None and reader.metadata is not None
        self._replica = reader.replica
        self._schema, self._metadata = reader.schema, reader.metadata
        self.progress.metadata = self._metadata
        try:
            for key, digest in (expected or {}).items():
                if getattr(self._metadata, key) != digest:
                    source = str(addresses[reader.replica % len(addresses)])
                    raise ChangedError(source, f"pba.{key}", getattr(self._metadata, key), digest)
        except BaseException:
            reader.drop()
            raise
        self._start(reader)

    def _reader(self, received: int, replica: int) -> _Reader:
        return _Reader(
            self._addresses,
            self._request,
            self._counters,
            stall_seconds=self._stall_seconds,
            retries=self._retries,
            memory_batches=self._memory_batches,
            replica=replica,
            received=received,
        )

    def _start(self, reader: _Reader) -> None:
        self._pid = os.getpid()
        # Shared memory is ahead of the loop without a thread: the server fills the slots.
        threaded = self._depth > 0 and not reader.shares_memory
        source = _Prefetch(reader, self._counters, self._depth) if threaded else _Direct(reader)
        self._source = source
        # Runs when the epoch is collected, and at exit of the interpreter.
        self._stop = weakref.finalize(self, _stop, os.getpid(), source)

    def _restart(self) -> None:
        """Reads on from where the loop is, with a connection of its own."""
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
        """Whether batches come through shared memory at present."""
        return self._source is not None and self._source.shares_memory

    @property
    def resumes(self) -> int:
        """Attempts to continue after a cut."""
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
        """Batches of the whole answer, whether taken or not."""
        return self._metadata.batches

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            CutError: when the stream was cut and could not be continued.
            ChangedError: when a server continues with other data.
            RefusedError: when a server refuses to continue.
            StreamError: when a server sends what it did not promise.
        """
        if self.progress.received == len(self):
            # The end is read before the epoch is over, so that the server counts it as whole.
            if not self._closed and self._source is not None:
                item = self._take()
                self._end_source()
                if isinstance(item, BaseException):
                    raise item
            raise StopIteration
        if self._closed:
            raise ValueError(f"the epoch was closed after {self.received} of {len(self)} batches")
        if self._source is None or self._pid != os.getpid():
            self._restart()
        item = self._take()
        lost = item is None or (isinstance(item, tuple) and item[0] != self.progress.received)
        if lost:
            # An interrupt (Ctrl-C) took a batch between the queue and the loop: fetch it again.
            self._restart()
            item = self._take()
        if isinstance(item, BaseException):
            self._end_source()
            raise item
        assert item is not None, "a reader ends only after the last batch"
        received, record_batch = item
        batch = Batch(self._request.number(received), record_batch)
        self.progress.received += 1
        return batch

    def _take(self) -> _Item:
        assert self._source is not None
        before = time.perf_counter()
        try:
            return self._source.next()
        finally:
            self._waited_seconds += time.perf_counter() - before

    def state_dict(self) -> Dict[str, Any]:
        """The position after the batches that the loop has taken, for a checkpoint.

        Batches that were fetched ahead do not count. Holds only what JSON holds.
        """
        return self.progress.state()

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Goes to a saved position of the same request, forwards or backwards.

        Raises:
            ValueError: when the position is of another request, or not in this epoch.
            ChangedError: when the dataset or the schedule is another one.
        """
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
