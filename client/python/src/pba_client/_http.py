"""HTTP/1.1 over a plain socket: one request, one answer, read into the caller's memory.

The standard library's client copies a body through its own buffers. Here the bytes go from the
kernel straight to where they stay; only heads and chunk sizes pass through a small buffer.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import threading
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from ._errors import RefusedError, StreamError, UnreachableError

# A server that does not even accept the connection by then is down.
CONNECT_SECONDS = 10.0
# Large enough for a head or a message's header, small enough that little of a body, which is
# copied from here, is caught in it.
SMALL_BYTES = 2048
# Longer lines are not from a PBA server.
LINE_BYTES_MAX = 16 * 1024
HEADERS_MAX = 100
# Bodies that are read as a whole: lists, descriptions, errors.
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
# Bytes of a foreign answer that are shown.
SHOWN_BYTES = 200
PROBLEM = "application/problem+json"
# Streams through shared memory: what the client asks for, and the server's own bound.
MEMORY_PROTOCOL = "pba-memory/1"
MEMORY_BATCHES_MAX = 64
# Sealed memory and its descriptors are Linux's.
MEMORY_SUPPORTED = sys.platform == "linux" and hasattr(socket, "recv_fds")


class Address(NamedTuple):
    """A server's URL, taken apart."""

    host: str
    port: int
    prefix: str
    # Path of a Unix socket, which takes the place of host and port.
    path: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"http://{self.authority}{self.prefix}"

    def connect(self) -> socket.socket:
        """A connected socket.

        Raises:
            OSError: when nobody listens there.
        """
        if not self.path:
            return socket.create_connection((self.host, self.port), CONNECT_SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return connection


def parse_url(url: str) -> Address:
    """Checks a server's URL.

    Raises:
        ValueError: when it is neither ``http://HOST[:PORT][/PREFIX]`` nor ``unix:PATH``.
    """
    if url.startswith("unix:") and len(url) > len("unix:"):
        return Address("localhost", 80, "", url[len("unix:") :])
    parts = urlsplit(url)
    wrong = None
    if url.startswith("unix:"):
        wrong = "it names no path"
    elif parts.scheme != "http":
        wrong = "only http is spoken here"
    elif not parts.hostname:
        wrong = "it names no host"
    elif parts.query or parts.fragment or parts.username:
        wrong = "it holds more than host, port and path"
    else:
        try:
            return Address(parts.hostname, parts.port or 80, parts.path.rstrip("/"))
        except ValueError as error:
            wrong = str(error)
    raise ValueError(f"{url!r} is not a server's URL: {wrong}; expected http://HOST:PORT or unix:PATH")


class StallError(StreamError):
    """The server sent nothing for too long."""


class ConnectError(UnreachableError):
    """The server did not accept a connection."""


class Canceller:
    """Lets another thread end what a thread waits for: a socket or a pause."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._socket: Optional[socket.socket] = None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ends the current wait, and every later one at once."""
        with self._lock:
            self._stopped.set()
            if self._socket is not None:
                try:
                    # Wakes a blocked read. Its own thread closes the socket, so that the file
                    # descriptor is not given to somebody else while it is being read.
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer was faster

    def watch(self, sock: Optional[socket.socket]) -> bool:
        """Registers the socket that is waited for; false when it is too late."""
        with self._lock:
            self._socket = sock
            return not self._stopped.is_set()

    def pause(self, seconds: float) -> None:
        """Waits, or until stopped."""
        self._stopped.wait(seconds)


class Response:
    """The answer to one request, on its own connection.

    Attributes:
        status: HTTP status.
        headers: header fields by lower-case name.
        bytes: bytes of the body read so far, without HTTP's framing.
    """

    def __init__(
        self,
        address: Address,
        target: str,
        *,
        accept: str,
        stall_seconds: float,
        canceller: Optional[Canceller] = None,
        memory_batches: int = 0,
    ) -> None:
        """Connects, sends ``GET target`` and reads the head of the answer.

        Args:
            address: the server.
            target: path and query, escaped.
            accept: media type asked for.
            memory_batches: asks for shared memory in which so many batches may be held; 0 does not.
            stall_seconds: how long the server may send nothing.
            canceller: lets another thread end a wait.

        Raises:
            UnreachableError: when there is no connection, or no answer on it.
            StreamError: when the answer is not HTTP.
        """
        self.address = address
        self.bytes = 0
        self._canceller = canceller
        self._stall_seconds = stall_seconds
        self._small = bytearray(SMALL_BYTES)
        self._view = memoryview(self._small)
        self._at = self._end = 0
        try:
            self._socket = address.connect()
        except OSError as error:
            raise ConnectError(f"cannot reach {address}: {error}") from error
        try:
            if canceller is not None and not canceller.watch(self._socket):
                raise StreamError("the client was closed")
            self._receive = receiver(self._socket, stall_seconds)
            self._send(target, accept, memory_batches)
            self._head()
        except BaseException:
            self.close()
            raise

    def _send(self, target: str, accept: str, memory_batches: int) -> None:
        connection = "Connection: close\r\n"
        if memory_batches and self.address.path and MEMORY_SUPPORTED:
            # Whoever does not know it answers as ever.
            connection = (
                f"Connection: Upgrade\r\nUpgrade: {MEMORY_PROTOCOL}\r\n"
                f"PBA-Memory-Batches: {min(memory_batches, MEMORY_BATCHES_MAX)}\r\n"
            )
        request = (
            f"GET {self.address.prefix}{target} HTTP/1.1\r\n"
            f"Host: {self.address.authority}\r\n"
            f"Accept: {accept}\r\n"
            "User-Agent: pba-client\r\n"
            f"{connection}\r\n"
        )
        try:
            self._socket.sendall(request.encode("ascii"))
        except OSError as error:
            raise UnreachableError(f"cannot reach {self.address}: {error}") from error

    def _head(self) -> None:
        try:
            status_line = self._line()
            fields: List[str] = []
            while True:
                line = self._line()
                if not line:
                    break
                fields.append(line)
                if len(fields) > HEADERS_MAX:
                    raise StreamError(f"{self.address} answered more than {HEADERS_MAX} header fields")
        except StreamError as error:
            if isinstance(error, (Eof, StallError)):
                raise UnreachableError(f"{self.address} did not answer: {error}") from error
            raise
        version, _, rest = status_line.partition(" ")
        digits = rest[:3]
        if not version.startswith("HTTP/1.") or len(digits) != 3 or not digits.isdecimal():
            raise StreamError(f"{self.address} does not speak HTTP/1.1: {status_line[:SHOWN_BYTES]!r}")
        self.status = int(digits)
        self.headers: Dict[str, str] = {}
        for field in fields:
            name, _, value = field.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        self._ended = False
        # Bytes of the current chunk, or of the body, that are still to come. Without either
        # framing it ends with the connection, and Arrow's own end decides.
        self._left: Optional[int] = 0
        self._first_chunk = True
        if not self._chunked:
            length = self.headers.get("content-length")
            if length is None:
                self._left = None
            elif length.isdecimal():
                self._left = int(length)
            else:
                raise StreamError(f"{self.address} answered a wrong Content-Length: {length!r}")

    # Framing.

    def _fill(self) -> None:
        """Reads some bytes into the small buffer, which is empty."""
        count = self._receive(self._view, 0)
        if count == 0:
            raise Eof("the connection ended")
        self._at, self._end = 0, count

    def _line(self) -> str:
        """Reads one line, without its end."""
        found = self._small.find(b"\n", self._at, self._end)
        if found >= 0:  # as nearly always: the whole line is here
            line = self._small[self._at : found]
            self._at = found + 1
            return line.rstrip(b"\r").decode("latin-1")
        line = bytearray()
        while True:
            if self._at == self._end:
                self._fill()
            found = self._small.find(b"\n", self._at, self._end)
            end = self._end if found < 0 else found + 1
            line += self._view[self._at : end]
            self._at = end
            if found >= 0:
                return line.rstrip(b"\r\n").decode("latin-1")
            if len(line) > LINE_BYTES_MAX:
                raise StreamError(f"a line of more than {LINE_BYTES_MAX} bytes")

    def _next_chunk(self) -> bool:
        """Reads the size of the next chunk; false at the last one."""
        if not self._first_chunk and self._line():
            raise StreamError("a chunk is longer than its size")
        self._first_chunk = False
        digits = self._line().partition(";")[0].strip()
        try:
            size = int(digits, 16)
        except ValueError:
            raise StreamError(f"{digits[:SHOWN_BYTES]!r} is not the size of a chunk") from None
        if size < 0:
            raise StreamError(f"{digits[:SHOWN_BYTES]!r} is not the size of a chunk")
        if size == 0:
            while self._line():  # trailer fields
                pass
            self._ended = True
            return False
        self._left = size
        return True

    def _available(self, wanted: int) -> int:
        """How many of the wanted bytes the current chunk may give; 0 at the end of the body."""
        if self._ended:
            return 0
        if self._left is None:
            return wanted
        if self._left == 0:
            if not self._chunked:
                self._ended = True
                return 0
            if not self._next_chunk():
                return 0
        return min(wanted, self._left)

    def read_into(self, view: memoryview) -> int:
        """Reads until ``view`` is full or the body ends.

        Returns:
            Bytes read; fewer than ``len(view)`` only where the body ended as HTTP says it must.

        Raises:
            StreamError: when the connection ended before the body, or the server stalled.
        """
        read, total = 0, len(view)
        while read < total:
            count = self._available(total - read)
            if count == 0:
                break
            buffered = self._end - self._at
            if buffered:
                count = min(count, buffered)
                view[read : read + count] = self._view[self._at : self._at + count]
                self._at += count
            elif count < SMALL_BYTES // 2:
                # What follows soon is as short: read it along.
                self._fill_or_end()
                continue
            else:
                count = self._receive(view[read : read + count], count)
                if count == 0:
                    self._at_eof()
                    continue
            read += count
            if self._left is not None:
                self._left -= count
        self.bytes += read
        return read

    def _fill_or_end(self) -> None:
        try:
            self._fill()
        except Eof:
            self._at_eof()

    def _at_eof(self) -> None:
        if self._left is not None:
            raise Eof("the connection ended in the middle of the body")
        self._ended = True

    def read_all(self) -> bytes:
        """Reads the rest of a short body.

        Raises:
            StreamError: when it is cut, or longer than a document may be.
        """
        pieces, total = [], 0
        while True:
            piece = bytearray(64 * 1024)
            count = self.read_into(memoryview(piece))
            pieces.append(bytes(piece[:count]))
            total += count
            if count < len(piece):
                return b"".join(pieces)
            if total > DOCUMENT_BYTES_MAX:
                raise StreamError(f"{self.address} answered more than {DOCUMENT_BYTES_MAX} bytes")

    def refusal(self) -> RefusedError:
        """Reads the body of an answer that is no success, as an error."""
        try:
            body = self.read_all()
        except StreamError as error:
            body = str(error).encode()
        retry_after = self.headers.get("retry-after", "")
        # The form with a date is for caches; a PBA server sends seconds.
        seconds = float(retry_after) if retry_after.isdecimal() else None
        if self.headers.get("content-type", "").startswith(PROBLEM):
            try:
                problem = json.loads(body)
                return RefusedError(
                    self.status,
                    str(problem["detail"]),
                    parameter=problem.get("parameter"),
                    value=problem.get("value"),
                    allowed=problem.get("allowed"),
                    retry_after=seconds,
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                pass
        text = body[:SHOWN_BYTES].decode("utf-8", "replace")
        detail = f"{self.address} answered what no PBA server answers: {text!r}"
        return RefusedError(self.status, detail, retry_after=seconds)

    @property
    def shares_memory(self) -> bool:
        """Whether the server shares memory, and the socket speaks ``MEMORY_PROTOCOL`` now."""
        return self.status == 101 and self.headers.get("upgrade") == MEMORY_PROTOCOL

    @property
    def socket(self) -> socket.socket:
        """The connection's socket."""
        return self._socket

    def exchange(self, said: bytes, wanted: int) -> Tuple[bytes, List[int]]:
        """Sends something, and reads an answer that may bring file descriptors.

        Returns:
            Exactly ``wanted`` bytes, and the descriptors, which are the caller's to close.

        Raises:
            StreamError: when the connection ended first, or the server stalled.
        """
        try:
            self._socket.sendall(said)
            answer, descriptors, _, _ = socket.recv_fds(self._socket, wanted, 1)
        except OSError as error:
            raise broken(error, self._stall_seconds) from error
        if len(answer) != wanted:
            for descriptor in descriptors:
                os.close(descriptor)
            raise Eof("the connection ended")
        return answer, list(descriptors)

    def close(self) -> None:
        """Ends the connection; the server notices at once."""
        if self._canceller is not None:
            self._canceller.watch(None)
        self._socket.close()


class Eof(StreamError):
    """The connection ended where it must not."""


def receiver(sock: socket.socket, stall_seconds: float) -> Callable[[memoryview, int], int]:
    """How to read from a socket: ``receive(view, whole)`` gives the bytes read, 0 at the end.

    With ``whole``, the kernel fills the whole view before it wakes the thread, which then takes
    the interpreter's lock once per message instead of once per network packet. That needs a
    socket that really blocks, with the kernel's timeout; elsewhere ``whole`` is only a hint.
    """
    waitall = 0
    if os.name == "posix" and hasattr(socket, "MSG_WAITALL"):
        seconds = int(stall_seconds)
        micros = int((stall_seconds - seconds) * 1e6)
        sock.settimeout(None)
        timeval = struct.pack("@ll", seconds, micros)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        waitall = socket.MSG_WAITALL
    else:
        sock.settimeout(stall_seconds)
    if sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(view: memoryview, whole: int) -> int:
        try:
            return sock.recv_into(view, 0, waitall if whole else 0)
        except OSError as error:
            raise broken(error, stall_seconds) from error

    return receive


def broken(error: OSError, stall_seconds: float) -> StreamError:
    """What an error of a socket means."""
    # On Python 3.9 a timeout of the socket module is no TimeoutError.
    late = isinstance(error, (TimeoutError, socket.timeout))
    if late or error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
        return StallError(f"nothing came for {stall_seconds:g} seconds")
    return Eof(f"the connection broke: {error}")


def check_success(response: Response) -> None:
    """Raises the refusal of an answer that is no success, and closes it."""
    if response.status != 200 and not response.shares_memory:
        try:
            raise response.refusal()
        finally:
            response.close()

