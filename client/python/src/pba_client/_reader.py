"""The batches of an epoch in order, over any number of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List, Optional, Tuple, TypeVar, Union

from ._batch import Batch
from ._errors import CutError, RefusedError, StreamError, UnreachableError
from ._http import Access, Canceller, ConnectError, Eof, Response, StallError, UntrustedError
from ._ipc import StreamReader
from ._metadata import Metadata, check_columns
from ._progress import Progress
from ._request import ARROW_STREAM

# Pause before the second attempt in a row; doubled each time.
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 10.0
# Longest pause that a server can ask for.
RETRY_AFTER_SECONDS_MAX = 60.0
# Full, shutting down, or a proxy whose server is down: another attempt may succeed.
STATUS_RETRIED = (429, 502, 503, 504)
# Default of batches fetched ahead by a thread.
PREFETCH_BATCHES = 2
# Batches in shared memory beyond those fetched ahead: the loop's own, the one before it while the
# loop goes on, and two that a trainer may still be copying to its device.
MEMORY_BATCHES_LOOP = 4

if TYPE_CHECKING:
    from ._shared_memory import SharedMemoryReader

_T = TypeVar("_T")


def pause_seconds(failures: int, retry_after: Optional[float]) -> float:
    """How long to wait after a number of failures before the last one: longer each time, and at least
    as long as the server asks for."""
    pause = PAUSE_SECONDS * 2 ** (failures - 1) if failures > 0 else 0.0
    return max(min(pause, PAUSE_SECONDS_MAX), min(retry_after or 0.0, RETRY_AFTER_SECONDS_MAX))


def _stream(response: Response, progress: Progress) -> Union[StreamReader, SharedMemoryReader]:
    """The stream that an answer carries."""
    if response.shares_memory:
        # Imported only on Linux, which has what it needs.
        from ._shared_memory import SharedMemoryReader

        return SharedMemoryReader(response, progress)
    content_type = response.body.headers.get("content-type", "")
    if content_type.startswith(ARROW_STREAM):
        return StreamReader(response, progress)
    shown = response.access.hide(content_type)
    raise RefusedError(200, f"{response.address} answered {shown!r}, which is not an epoch")


class Connection:
    """One answer of one server, from its schema on."""

    def __init__(self, response: Response, progress: Progress) -> None:
        self.response = response
        # Of the answer, so far.
        self.rows = self.batches = 0
        try:
            response.check()
            stream = _stream(response, progress)
            self.next: Callable[[], Optional[Batch]] = stream.next
            self.schema = stream.schema
            try:
                self.metadata = Metadata.of(self.schema)
                check_columns(self.schema)
            except StreamError as error:
                # Without its cause, which shows what the server sent.
                raise StreamError(response.access.hide(str(error))) from None
            if self.metadata.rows and not self.metadata.batches:
                raise StreamError(f"it announces {self.metadata.rows} rows but no batches")
        except BaseException:
            response.close()
            raise


class Reader:
    """Reads the batches of an epoch in order, each exactly once, despite cuts.

    It begins where the loop is, and goes ahead of it. It is not thread-safe, except that another
    thread may stop ``canceller``.

    Attributes:
        received: batches read, with those before it began.
    """

    def __init__(self, access: Access, progress: Progress) -> None:
        self.canceller = Canceller()
        self._access = access
        self._progress = progress
        self.received = progress.received
        # Of the batches received; not known where others received some of them.
        self._rows: Optional[int] = None if progress.received else 0
        self._connection: Optional[Connection] = None

    def open(self, patient: bool) -> None:
        """Connects for the first time; if patient, servers that accept no connection may come back."""
        self._persist(self._connect, patient)

    @property
    def shares_memory(self) -> bool:
        """Whether the current connection is through shared memory."""
        connection = self._connection
        return connection is not None and connection.response.shares_memory

    @property
    def is_near(self) -> bool:
        """Whether the current connection is to this machine, and in the clear."""
        return self._connection is not None and self._connection.response.is_near

    def next(self) -> Tuple[int, Optional[Batch]]:
        """The number of batches before the next one, and that; none when all announced have arrived."""
        received, whole = self.received, self._progress.metadata
        assert whole is not None
        if received == whole.batches:
            self._finish(whole)
            return received, None
        batch = self._persist(self._read)
        self.received += 1
        if self._rows is not None:
            self._rows += len(batch)
        return received, batch

    def _persist(self, attempt: Callable[[], _T], patient: bool = True) -> _T:
        """Repeats an attempt until it succeeds or fails for good."""
        # In total, and successive ones that another attempt would not help.
        attempts = hopeless = 0
        away: Optional[UnreachableError] = None
        while True:
            try:
                return attempt()
            except BaseException as error:
                # After an interrupt in the middle of a message, too: the rest cannot be read.
                self.drop()
                refused = isinstance(error, RefusedError) and error.status not in STATUS_RETRIED
                failed = isinstance(error, (UnreachableError, StreamError, RefusedError))
                if refused or not failed or self.canceller.stopped.is_set():
                    raise
                failure = error
            attempts += 1
            if isinstance(failure, UntrustedError) or (isinstance(failure, ConnectError) and not patient):
                hopeless += 1
                failure = away = failure.after(away)
            else:
                hopeless, away = 0, None
            # Counted in rounds: more replicas never mean fewer attempts at each.
            replicas = len(self._access.addresses)
            attempts_max = self._access.retries * replicas
            whole = self._progress.metadata
            if attempts > attempts_max or hopeless >= replicas:
                if whole is None or isinstance(failure, RefusedError):
                    raise failure
                made = min(attempts, attempts_max)
                raise CutError(self.received, whole.batches, made, str(failure)) from failure
            if whole is not None:
                self._progress.resumes += 1
            self._progress.replica += 1
            # Each replica is tried once without a pause, and so is a single one that cut a stream.
            rounds, rest = divmod(attempts, replicas)
            if rest == 0:
                retry_after = failure.retry_after if isinstance(failure, RefusedError) else None
                self.canceller.pause(pause_seconds(rounds - 1, retry_after))

    def _connect(self) -> Connection:
        """Requests the missing batches from the current replica, and checks that its data is the same."""
        progress, request, access = self._progress, self._progress.request, self._access
        address = access.addresses[progress.replica % len(access.addresses)]
        ahead = PREFETCH_BATCHES if access.prefetch is None else access.prefetch
        # A codec is for networks; the server would not compress into shared memory.
        shared = access.shared_memory and request.codec is None
        response = Response(
            address,
            request.target(self.received),
            accept=request.accept(),
            access=access,
            stall_seconds=access.stall_seconds,
            canceller=self.canceller,
            memory_batches=ahead + MEMORY_BATCHES_LOOP if shared else 0,
        )
        connection = self._connection = Connection(response, progress)
        found, whole = connection.metadata, progress.metadata
        # The server understood them; "007" is 7.
        checks: List[Tuple[str, object, object]] = [
            ("pba.epoch", found.epoch, int(request.epoch)),
            ("pba.seed", found.seed, int(request.parameters.get("seed", "0"))),
        ]
        if whole is not None:
            checks += [
                ("pba.dataset", found.dataset, whole.dataset),
                ("pba.schedule", found.schedule, whole.schedule),
                ("schema", connection.schema, progress.schema),
                ("pba.batches", found.batches, whole.batches - self.received),
            ]
            if self._rows is not None:
                checks.append(("pba.rows", found.rows, whole.rows - self._rows))
        for key, value, expected in checks:
            access.check_same(str(address), key, value, expected)
        if whole is None:
            progress.schema, progress.metadata = connection.schema, found
        return connection

    def _read(self) -> Batch:
        connection = self._connection or self._connect()
        batch = connection.next()
        announced = connection.metadata
        if batch is None:
            assert self._progress.metadata is not None
            raise StreamError(f"it ended after {self.received} of {self._progress.metadata.batches} batches")
        connection.batches += 1
        connection.rows += len(batch)
        if connection.batches == announced.batches and connection.rows != announced.rows:
            raise StreamError(f"it has {connection.rows} rows where {announced.rows} were announced")
        return batch

    def _finish(self, whole: Metadata) -> None:
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
            raise StreamError(f"it has more than the {whole.batches} batches announced")

    def drop(self) -> None:
        """Ends the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.response.close()
