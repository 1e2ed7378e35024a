"""The batches of an epoch in order, over any number of connections."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, List, Optional, Tuple, TypeVar, Union

from ._batch import Batch
from ._checksum import SCHEMA_HEADER, of_schema
from ._errors import (
    URN,
    CutError,
    PbaError,
    RefusedError,
    StreamError,
    UnreachableError,
    is_busy,
    is_of_replica,
    of_all,
    told,
)
from ._http import Access, Canceller, ConnectError, ForeignError, Response, UntrustedError
from ._ipc import StreamReader
from ._metadata import Metadata
from ._progress import Progress
from ._request import ARROW_STREAM

# Pause before the second attempt in a row; doubled each time.
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 10.0
# Longest pause that a server can ask for.
RETRY_AFTER_SECONDS_MAX = 60.0
# Kind of the refusal of a dataset that is being imported; shortest pause until it is asked for again,
# and how often the wait is logged.
IMPORTING = URN + "importing"
IMPORT_SECONDS = 1.0
LOG_SECONDS = 5.0
# Default of batches fetched ahead by a thread.
PREFETCH_BATCHES = 2
# Batches in shared memory beyond those fetched ahead: the loop's own, the one before it while the
# loop goes on, and two that a trainer may still be copying to its device.
MEMORY_BATCHES_LOOP = 4

if TYPE_CHECKING:
    from ._shared_memory import SharedMemoryReader

_T = TypeVar("_T")
_LOG = logging.getLogger("pba_client")


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
    raise ForeignError(f"{response.address} answered {shown!r}, which is not an epoch")


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
        # Of the batches received; known once a server has said how many are left.
        self._rows: Optional[int] = None
        # What the current connection announced.
        self._announced_rows = 0
        self.response: Optional[Response] = None
        self._stream: Union[StreamReader, SharedMemoryReader, None] = None
        # When a wait for an import was logged last.
        self._logged = float("-inf")

    def open(self, patient: bool) -> None:
        """Connects for the first time; if patient, servers that accept no connection may come back."""
        self._persist(self.connect, patient)

    @property
    def shares_memory(self) -> bool:
        """Whether the current connection is through shared memory."""
        response = self.response
        return response is not None and response.shares_memory

    def next(self) -> Tuple[int, Optional[Batch]]:
        """The number of batches before the next one, and that; none when all announced have arrived."""
        received, total = self.received, self._progress.metadata
        assert total is not None
        if received == total.batches:
            self._finish()
            return received, None
        return received, self._persist(self._read)

    def _persist(self, attempt: Callable[[], _T], patient: bool = True) -> _T:
        """Repeats an attempt until it succeeds or fails for good. While a server is importing the
        dataset, and none has it, attempts do not count."""
        # In total, and successive ones that another attempt would not help.
        attempts = hopeless = 0
        # Counted in rounds: more replicas never mean fewer attempts at each.
        replicas = len(self._access.addresses)
        # Of the last attempt at each.
        failures: Deque[Tuple[str, PbaError]] = deque(maxlen=replicas)
        importing: Optional[RefusedError] = None
        round_end = 0
        while True:
            try:
                return attempt()
            except BaseException as error:
                # After an interrupt in the middle of a message, too: the rest cannot be read.
                self.drop()
                failed = is_busy(error) or is_of_replica(error)
                failed = failed or isinstance(error, (UnreachableError, StreamError))
                if not failed or self.canceller.stopped.is_set():
                    raise
                failure = error
            attempts += 1
            failures.append((str(self._access.addresses[self._progress.replica % replicas]), failure))
            away = isinstance(failure, UntrustedError) or (isinstance(failure, ConnectError) and not patient)
            hopeless = hopeless + 1 if away or is_of_replica(failure) else 0
            refusal = failure if isinstance(failure, RefusedError) else None
            imports = refusal is not None and refusal.kind == IMPORTING
            if importing is None and imports:
                # Until all others were tried.
                importing, round_end = refusal, attempts + replicas - 1
            attempts_max = self._access.retries * replicas
            total = self._progress.metadata
            if (attempts > attempts_max and importing is None) or hopeless >= replicas:
                every = of_all(failures)
                if total is None or all(is_of_replica(error) for _, error in failures):
                    raise every
                made = min(attempts, attempts_max)
                raise CutError(self.received, total.batches, made, told(failures)) from every
            if total is not None and not imports:
                self._progress.resumes += 1
            self._progress.replica += 1
            # Each replica is tried once without a pause, and so is a single one that cut a stream.
            rounds, rest = divmod(attempts, replicas)
            if importing is not None and attempts == round_end:
                # An import ends, so that the round does not count.
                attempts -= replicas
                self._wait_for_import(importing)
                importing = None
            elif importing is None and rest == 0:
                self.canceller.pause(pause_seconds(rounds - 1, refusal.retry_after if refusal else None))

    def _wait_for_import(self, refusal: RefusedError) -> None:
        """Waits until the server may be asked again, and logs its progress now and then."""
        if time.monotonic() - self._logged >= LOG_SECONDS:
            # The first is seen without any configuration: the wait may take hours.
            level = logging.WARNING if self._logged == float("-inf") else logging.INFO
            _LOG.log(level, "waiting: %s", refusal.detail)
            self._logged = time.monotonic()
        self.canceller.pause(max(IMPORT_SECONDS, pause_seconds(0, refusal.retry_after)))

    def connect(self) -> None:
        """Requests the missing batches from the current replica, and checks that its data is the same."""
        progress, request, access = self._progress, self._progress.request, self._access
        address = access.addresses[progress.replica % len(access.addresses)]
        ahead = PREFETCH_BATCHES if access.prefetch is None else access.prefetch
        # A codec is for networks; the server would not compress into shared memory.
        shared = access.shared_memory and request.codec is None
        self.response = Response(
            address,
            request.target(self.received),
            accept=request.accept(),
            access=access,
            stall_seconds=access.stall_seconds,
            canceller=self.canceller,
            memory_batches=ahead + MEMORY_BATCHES_LOOP if shared else 0,
        )
        self.response.check()
        self._stream = _stream(self.response, progress)
        # What was changed on its way says nothing of the server.
        self.response.check_request()
        if self.response.checks and isinstance(self._stream, StreamReader):
            self.response.check_header(SCHEMA_HEADER, of_schema(self._stream.head, self.response.asked))
        schema, total = self._stream.schema, progress.metadata
        try:
            found = Metadata.of(schema)
        except StreamError as error:
            # Without its cause, which shows what the server sent.
            raise StreamError(access.hide(str(error))) from None
        # The server understood them; "007" is 7.
        checks: List[Tuple[str, object, object]] = [
            ("pba.epoch", found.epoch, int(request.epoch)),
            ("pba.seed", found.seed, int(request.parameters.get("seed", "0"))),
        ]
        if total is not None:
            checks += [
                ("pba.dataset", found.dataset, total.dataset),
                ("pba.schedule", found.schedule, total.schedule),
                ("schema", schema, progress.schema),
                ("pba.batches", found.batches, total.batches - self.received),
            ]
            if self._rows is not None:
                checks.append(("pba.rows", found.rows, total.rows - self._rows))
            checks.append(("pba.recipe", found.recipe, total.recipe))
        for key, value, expected in checks:
            access.check_same(str(address), key, value, expected)
        if total is None:
            progress.schema, progress.metadata = schema, found
            total = found
        self._rows, self._announced_rows = total.rows - found.rows, found.rows

    def _read(self) -> Batch:
        if self._stream is None:
            self.connect()
        total = self._progress.metadata
        assert self._stream is not None and self._rows is not None and total is not None
        batch = self._stream.next()
        if batch is None:
            raise StreamError(f"it ended after {self.received} of {total.batches} batches")
        rows = self._rows + len(batch)
        if self.received + 1 == total.batches and rows != total.rows:
            sent = rows - total.rows + self._announced_rows
            raise StreamError(f"it has {sent} rows where {self._announced_rows} were announced")
        self._rows = rows
        self.received += 1
        return batch

    def _finish(self) -> None:
        """Reads the end of the stream.

        A cut or damage after the last batch loses nothing, so nothing is requested again; but an extra
        batch is an error.
        """
        if self._stream is None:
            return
        try:
            surplus = self._stream.next()
        except StreamError:
            surplus = None
        finally:
            self.drop()
        if surplus is not None:
            raise StreamError(f"it has more than the {self.received} batches announced")

    def drop(self) -> None:
        """Ends the connection, if there is one."""
        response, self.response, self._stream = self.response, None, None
        if response is not None:
            response.opened.close()
