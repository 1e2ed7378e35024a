"""An Arrow stream in the body of an answer, read into memory that the arrays are views of."""

from __future__ import annotations

import http.client
from typing import Optional, Tuple, Union

import pyarrow as pa

from ._batch import Batch, Layout, decoded, head_of, padding
from ._checksum import Place
from ._errors import StreamError
from ._http import Eof, Response, broken
from ._progress import Progress

# Most bytes of a part of a message; the server's own default bound is 256 MiB.
READ_BYTES_MAX = 4 * 1024 * 1024 * 1024
# The marks and lengths before the metadata of a message.
MARK_BYTES = 8
# Bytes read along with a mark: more than a batch's metadata, and little or nothing of a body.
AHEAD_BYTES = 4096

_FAULTS = (OSError, http.client.HTTPException, MemoryError)


class Body:
    """The body of an answer as the file that pyarrow reads: a short read raises a ``StreamError``.

    pyarrow itself mistakes an early end for the end of the stream. A message's body goes from the
    kernel directly into an aligned buffer that the arrays keep. The buffer is from pyarrow's pool:
    reused memory, for which the kernel need not find pages.
    """

    closed = False

    def __init__(self, response: Response, progress: Progress) -> None:
        self._body = response.body
        self._stall_seconds = response.stall_seconds
        self._progress = progress
        # Whether HTTP says where the body ends; else an end and a cut look the same.
        self._is_framed = response.body.chunked or response.body.length is not None
        self._ahead = b""

    def read(self, size: int) -> Union[bytes, pa.Buffer]:
        """Exactly ``size`` bytes."""
        if size > MARK_BYTES:
            return self._buffer(size)
        while len(self._ahead) < size:
            if not self._look_ahead():
                raise (StreamError if self._is_framed else Eof)("the body ended without Arrow's end of stream")
        return self._take(size)

    def repeated(self, layout: Layout, number: int) -> Optional[pa.Buffer]:
        """The next message, padded in front, if its head is that of a known layout; else nothing is taken.
        So many batches came before.

        Raises:
            StreamError: also when its checksum is wrong.
        """
        known = layout.head
        while len(self._ahead) < len(known):
            if not layout.may_begin(self._ahead) or not self._look_ahead():
                return None
        if not layout.begins(self._ahead):
            return None
        head = self._take(len(known))
        message = self._buffer(layout.body_bytes, head)
        if layout.checksum is not None:
            layout.checksum.check(head, memoryview(message)[padding(head) + len(head) :], number)
        return message

    def end(self) -> None:
        """Reads the end of the body."""
        if self._ahead or self._look_ahead():
            raise StreamError("bytes follow Arrow's end of stream")

    def _look_ahead(self) -> int:
        # At most the rest of an HTTP chunk: the server sends heads and bodies in chunks of their own.
        try:
            more = self._body.read1(AHEAD_BYTES)
        except _FAULTS as error:
            raise broken(error, self._stall_seconds) from error
        self._ahead += more
        return len(more)

    def _take(self, size: int) -> bytes:
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        self._progress.bytes += len(taken)
        return taken

    def _buffer(self, size: int, head: bytes = b"") -> pa.Buffer:
        """Reads ``size`` bytes into a buffer that begins with the padded head."""
        if size > READ_BYTES_MAX:
            raise StreamError(f"an Arrow message announces {size} bytes")
        known = head + self._take(size)
        try:
            buffer = pa.allocate_buffer(padding(head) + len(head) + size)
            rest = memoryview(buffer).cast("B")[padding(head) :]
            rest[: len(known)] = known
            rest = rest[len(known) :]
            # If everything is here, nothing more is read: it might only come with the next batch.
            count = self._body.readinto(rest) if rest else 0
        except _FAULTS as error:
            raise broken(error, self._stall_seconds) from error
        if count != len(rest):
            raise Eof("the connection ended in the middle of the body")
        self._progress.bytes += count
        return buffer


class StreamReader:
    """Reads the batches of a stream from the body of an answer.

    pyarrow decodes the first batch. Those after it that have the same head, byte for byte, have
    their columns in the same places, so that nothing has to be decoded until more than arrays is
    needed. This saves more than the package adds on top of pyarrow.

    Attributes:
        schema: the stream's schema.
        head: the message that it came in.

    Raises:
        StreamError: here and from ``next``, when the stream is cut, or is not a valid Arrow stream.
    """

    def __init__(self, response: Response, progress: Progress) -> None:
        self._body = Body(response, progress)
        self._file = pa.PythonFile(self._body, mode="r")
        self._layout: Optional[Layout] = None
        self._checks = response.checks
        # Checksum of the schema, and batches so far.
        self._checksum = self._number = 0
        try:
            message, self.head, self._checksum = self._message("schema")
            self.schema: pa.Schema = pa.ipc.read_schema(message)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise StreamError(f"it is not an Arrow stream: {error}") from error

    def next(self) -> Optional[Batch]:
        """The next batch; none at Arrow's end of stream, with HTTP's last chunk after it."""
        if self._layout is not None:
            repeated = self._body.repeated(self._layout, self._number)
            if repeated is not None:
                self._number += 1
                return Batch(self.schema, None, self._layout, repeated)
        try:
            message, head, _ = self._message("record batch")
            record_batch = decoded(message, self.schema)
        except EOFError:
            self._body.end()
            return None
        except (pa.ArrowException, OSError) as error:
            raise StreamError(f"a batch is broken: {error}") from error
        place = Place.of(head, self._checksum) if self._checks else None
        self._number += 1
        self._layout = Layout.of(head, padding(head), place, message.body, record_batch)
        return Batch(self.schema, record_batch)

    def _message(self, kind: str) -> Tuple[pa.Message, bytes, int]:
        """The next message, what preceded its body, and its checksum, which is right, or 0 unless checked."""
        message = pa.ipc.read_message(self._file)
        if message.type != kind:
            raise StreamError(f"it has a {message.type} where a {kind} is expected")
        head = head_of(message)
        body = b"" if message.body is None else message.body
        checksum = Place.of(head, self._checksum).check(head, body, self._number) if self._checks else 0
        return message, head, checksum
