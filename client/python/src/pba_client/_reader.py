"""The batches of an epoch in order, over any number of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List, Optional, Tuple, TypeVar, Union

from ._batch import Batch
from ._checksum import SCHEMA_HEADER, of_schema
from ._errors import CutError, PbaError, StreamError
from ._http import Access, Canceller, ForeignError, Response
from ._ipc import StreamReader
from ._metadata import Metadata
from ._outage import Outage, counted, is_importing, may_pass
from ._progress import Progress
from ._request import ARROW_STREAM

# Default of batches fetched ahead by a thread.
PREFETCH_BATCHES = 2
# Batches in shared memory beyond those fetched ahead: the loop's own, the one before it while the
# loop goes on, and two that a trainer may still be copying to its device.
MEMORY_BATCHES_LOOP = 4

if TYPE_CHECKING:
    from ._shared_memory import SharedMemoryReader

_T = TypeVar("_T")


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

    def open(self, reached: bool) -> None:
        """Connects for the first time; servers that were reached before may come back."""
        self._persist(self.connect, reached)

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

    def _persist(self, attempt: Callable[[], _T], reached: bool = True) -> _T:
        """Repeats an attempt until it succeeds or fails for good. While a server is importing the
        dataset, and none has it, attempts do not count."""
        outage: Optional[Outage] = None
        was_cut = self.response is not None
        while True:
            try:
                result = attempt()
            except BaseException as error:
                # After an interrupt in the middle of a message, too: the rest cannot be read.
                self.drop()
                if not isinstance(error, PbaError) or not may_pass(error) or self.canceller.stopped.is_set():
                    raise
                failure = error
            else:
                if outage is not None:
                    outage.over()
                    # Their tracebacks would keep this frame, and with it the batch, until garbage is collected.
                    del failure, outage
                return result
            outage = outage or self._outage(reached, was_cut)
            progress, addresses = self._progress, self._access.addresses
            pause_seconds = outage.failed(addresses[progress.replica % len(addresses)], failure)
            if pause_seconds is None:
                raise self._given_up(outage)
            if progress.metadata is not None and not is_importing(failure):
                progress.resumes += 1
            progress.replica += 1
            self.canceller.pause(pause_seconds)
            if self.canceller.stopped.is_set():
                raise StreamError("the client was closed") from failure

    def _outage(self, reached: bool, was_cut: bool) -> Outage:
        request, total = self._progress.request, self._progress.metadata
        if total is None:
            return Outage(
                self._access,
                reached,
                f"epoch {request.epoch} of {request.dataset!r} could not be opened",
                ("again", "opened"),
            )
        cut = f"the stream was cut after {self.received} of {total.batches} batches"
        return Outage(self._access, reached, cut, ("to continue it", "continued"), was_cut)

    def _given_up(self, outage: Outage) -> PbaError:
        """The error when no further attempt is of use."""
        error, total = outage.error(), self._progress.metadata
        if total is None or outage.is_of_replicas():
            return error
        tried = f"{counted(outage.attempts)} to continue it within {outage.seconds:.1f} s failed"
        cut = CutError(
            f"the stream was cut after {self.received} of {total.batches} batches, and "
            f"{tried if outage.attempts else 'nothing else was tried'}: {outage.reason}{outage.advice}",
            received=self.received,
            expected=total.batches,
            attempts=outage.attempts,
            seconds=outage.seconds,
            reason=outage.reason,
        )
        cut.__cause__ = error
        return cut

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
