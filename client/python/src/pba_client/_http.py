"""One request and its answer, over the standard library's client, with its errors."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Union

from . import _private, _private_plan
from ._address import Address, is_loopback
from ._checksum import BODY_HEADER, REQUEST_HEADER, of_body, of_request
from ._errors import (
    STATUS_OF_ACCESS,
    STATUS_RETRIED,
    URN,
    ChangedError,
    RefusedError,
    StreamError,
    UnreachableError,
)

# A server that does not accept the connection within this time counts as down.
CONNECT_SECONDS = 10.0
# Most seconds until a document has arrived.
DOCUMENT_SECONDS = 30.0
# Most bytes of a body that is not a stream: lists, descriptions, errors.
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
PIECE_BYTES = 64 * 1024
# Bytes shown of an answer that is not a PBA server's.
SHOWN_BYTES = 200
PROBLEM = "application/problem+json"
# Streams through shared memory: the protocol to ask for, and the server's bound.
MEMORY_PROTOCOL = "pba-memory/1"
MEMORY_BATCHES_MAX = 64
# Only Linux has sealed memory and passes its descriptors.
MEMORY_SUPPORTED = sys.platform == "linux" and hasattr(socket, "recv_fds")
# The beginning of TLS's answer to a request in the clear: an alert, which is not HTTP.
TLS_ALERT = "\x15\x03"
# OpenSSL's numbers for a certificate that is signed by itself, or by an authority that is not
# among those trusted.
UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


class Eof(StreamError):
    """The connection ended too early."""


class StallError(StreamError):
    """The server sent nothing for too long."""


class ForeignError(StreamError):
    """An answer that is not what a PBA server sends: of another program, or damaged on its way."""


class ConnectError(UnreachableError):
    """The server did not accept a connection.

    Attributes:
        comes_back: whether it is a private server, which is started again: its address is not mistyped.
        advice: what to do once no further attempt is made.
    """

    comes_back = False
    advice = ""


class UntrustedError(UnreachableError):
    """The server's certificate is not trusted; waiting does not help."""


@dataclass(repr=False)
class Access:
    """The servers of a client, and how it reaches them: its options.

    Raises:
        ValueError: when the token is not valid in a header. The message does not show it.
    """

    addresses: Sequence[Address]
    token: Optional[str]
    ca: Union[str, "os.PathLike[str]", None]
    stall_seconds: float
    retry_seconds: float
    wait_seconds: float
    prefetch: Optional[int]
    shared_memory: bool
    # None checks where neither TLS nor shared memory answers for the bytes.
    checksums: Optional[bool] = None
    _context: Optional[ssl.SSLContext] = None

    def __post_init__(self) -> None:
        self.token = token = os.environ.get("PBA_TOKEN") or None if self.token is None else self.token
        self.ca = os.environ.get("PBA_CA") or None if self.ca is None else os.fspath(self.ca)
        if token is not None and not (isinstance(token, str) and re.fullmatch("[!-~]+", token)):
            raise ValueError(
                "the token is not valid in an HTTP header; expected visible ASCII characters, "
                "without spaces or line breaks"
            )

    def hide(self, text: str) -> str:
        """A server's text with the token hidden, which it may repeat."""
        return text if self.token is None else text.replace(self.token, "...")

    def check_same(self, source: str, key: str, found: object, expected: object) -> None:
        """Refuses other data than expected, with a ``ChangedError``."""
        if found != expected:
            raise ChangedError.of(source, key, self.hide(str(found)), str(expected))

    def context(self) -> ssl.SSLContext:
        """The TLS context; a ``ValueError`` when the authority's file cannot be used."""
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cafile=self.ca)
            except OSError as error:
                reason = "it is not in PEM" if isinstance(error, ssl.SSLError) else str(error.strerror).lower()
                raise ValueError(
                    f"ca is {self.ca!r}: {reason}; expected a PEM file with the certificate of an authority"
                ) from error
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def __getstate__(self) -> Dict[str, Any]:
        # A spawned process creates a context of its own.
        return {**self.__dict__, "_context": None}


class Canceller:
    """Lets another thread end a thread's wait for a socket or a pause."""

    def __init__(self) -> None:
        # A handler of a signal may stop what its own thread is about to wait for.
        self._lock = threading.RLock()
        self.stopped = threading.Event()
        self._socket: Optional[socket.socket] = None

    def stop(self) -> None:
        """Ends the current wait, and every later one at once."""
        # The peer may be faster.
        with self._lock, suppress(OSError):
            self.stopped.set()
            if self._socket is not None:
                # Wakes a blocked read. Its own thread closes the socket, so that the file descriptor
                # is not given to another file while it is being read. That of a TLS socket would go
                # on in the clear; this ends the one below.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def watch(self, sock: Optional[socket.socket]) -> bool:
        """Registers the socket that is waited for; false when it is too late."""
        with self._lock:
            self._socket = sock
            return not self.stopped.is_set()

    def pause(self, seconds: float) -> None:
        """Waits, or until stopped."""
        self.stopped.wait(seconds)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        try:
            self._connect()
        except (ConnectionRefusedError, FileNotFoundError):
            self.sock.close()
            if not _private.rejoin(self._path):
                raise
            self._connect()

    def _connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(address: Address, access: Access) -> http.client.HTTPConnection:
    if address.path:
        return _UnixConnection(address.path, CONNECT_SECONDS)
    if address.scheme == "http":
        return http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
    return http.client.HTTPSConnection(
        address.host, address.port, timeout=CONNECT_SECONDS, context=access.context()
    )


class Response:
    """The answer to one request, on a connection of its own.

    Attributes:
        body: the standard library's answer: status, head, and the body to read.
        socket: the connection's socket.
        is_near: whether the body comes from this machine, and in the clear.
        shares_memory: whether the server uses shared memory, and the socket carries ``MEMORY_PROTOCOL``.
        checks: whether the checksums of a plain stream are to be compared.
        opened: what ends with the connection; closing this ends it, which the server notices at once.
    """

    def __init__(
        self,
        address: Address,
        target: str,
        *,
        accept: str,
        access: Access,
        stall_seconds: float,
        canceller: Optional[Canceller] = None,
        memory_batches: int = 0,
    ) -> None:
        """Connects, sends ``GET target`` and reads the head of the answer.

        Args:
            stall_seconds: how long the server may send nothing.
            memory_batches: batches to hold in shared memory; 0 does not ask for shared memory.

        Raises:
            UnreachableError: when there is no connection, or no answer on it.
            StreamError: when the answer is not HTTP.
        """
        self.address = address
        self.access = access
        self.stall_seconds = stall_seconds
        # The checksum of the request, which the answer has to name.
        self.asked = of_request("GET", target)
        headers = {"Accept": accept, "User-Agent": "pba-client", "Connection": "close"}
        if access.token is not None:
            headers["Authorization"] = f"Bearer {access.token}"
        if memory_batches and address.path and MEMORY_SUPPORTED:
            # A server that does not know it answers as usual.
            headers["Connection"], headers["Upgrade"] = "Upgrade", MEMORY_PROTOCOL
            headers["PBA-Memory-Batches"] = str(min(memory_batches, MEMORY_BATCHES_MAX))
        with ExitStack() as opened:
            connection = opened.enter_context(closing(_connection(address, access)))
            try:
                connection.connect()
            except _private_plan.StartError as error:
                # The reason may pass, as a full disk does.
                failed = ConnectError(f"cannot reach {address}: {error}")
                failed.comes_back = True
                raise failed from error
            except UnicodeError as error:
                raise ConnectError(f"cannot reach {address}: its host name is invalid") from error
            except OSError as error:
                raise unreachable(address, error) from error
            self.socket: socket.socket = connection.sock
            # http.client closes at the end of an answer. This one keeps the descriptor open.
            opened.enter_context(self.socket.makefile("rb", buffering=0))
            canceller = canceller or Canceller()
            opened.callback(canceller.watch, None)
            if not canceller.watch(self.socket):
                raise StreamError("the client was closed")
            self.socket.settimeout(stall_seconds)
            self.body = self._ask(opened, connection, target, headers)
            upgraded = self.body.status == 101 and self.body.headers.get("upgrade") == MEMORY_PROTOCOL
            self.shares_memory = upgraded and bool(address.path)
            self.checks = address.scheme != "https" if access.checksums is None else access.checksums
            self.opened = opened.pop_all()

    def _ask(
        self, opened: ExitStack, connection: http.client.HTTPConnection, target: str, headers: Dict[str, str]
    ) -> http.client.HTTPResponse:
        address = self.address
        try:
            here = bool(address.path) or is_loopback(self.socket.getpeername()[0])
            self.is_near = here and address.scheme != "https"
            connection.request("GET", address.prefix + target, headers=headers)
            body = opened.enter_context(connection.getresponse())
            # http.client takes the end of the connection for the end of the head. But something
            # follows every head: a body, or what was agreed on with 101.
            is_cut = body.status != 101 and body.length != 0 and not body.fp.peek(1)
            # A head of 101 says what was agreed on, unless it ended before.
            if is_cut or (body.status == 101 and body.headers.get("upgrade") != MEMORY_PROTOCOL):
                raise Eof("the connection ended in the head, or after it")
            return body
        except http.client.RemoteDisconnected as error:
            raise UnreachableError(f"{address} did not answer: the connection ended") from error
        except http.client.HTTPException as error:
            sent = self.access.hide(str(error)).rstrip("\r\n")[:SHOWN_BYTES]
            hint = "; does the server use https://?" if sent.startswith(TLS_ALERT) else ""
            # Without its cause, which shows what the server sent.
            raise StreamError(f"{address} does not speak HTTP/1.1: {sent!r}{hint}") from None
        except (OSError, Eof) as error:
            raise UnreachableError(f"{address} did not answer: {broken(error, self.stall_seconds)}") from error

    def check(self) -> None:
        """Raises a ``RefusedError`` with the reason of the server or of a proxy before it, if the answer is not a
        success; a ``ForeignError`` if it is from neither."""
        status = self.body.status
        if status == 200 or self.shares_memory:
            return
        try:
            body = self.read_all()
        except StreamError as error:
            body = str(error).encode()
        retry_after = self.body.headers.get("retry-after", "")
        # The form with a date is for caches; a PBA server sends seconds.
        seconds = float(retry_after) if retry_after.isdecimal() else None
        shown = self.access.hide(body.decode("utf-8", "replace"))[:SHOWN_BYTES]
        problem = self._problem(body)
        detail = problem.pop("detail", None)
        if problem.get("kind", "").startswith(URN):
            # That of a proxy is to whatever the proxy got.
            self.check_answer(body)
            self._check_host(problem, detail)
        if detail is None:
            detail = f"{self.address} answered {status}, which is not an answer of a PBA server: {shown!r}"
            # A refusal that was damaged is none, whatever its status says now.
            if status not in (*STATUS_OF_ACCESS, *STATUS_RETRIED) or URN.encode() in body:
                raise ForeignError(detail)
        if status == 401:
            passed = "pass" if self.access.token is None else "it does not accept the one passed as"
            detail += f"; {passed} token=, or PBA_TOKEN in the environment"
        message = f"{detail} ({status})"
        raise RefusedError(message, status=status, detail=detail, retry_after=seconds, **problem)

    def _check_host(self, problem: Dict[str, str], detail: Optional[str]) -> None:
        """Refuses a refusal of another host than was named, with a ``StreamError``; it is in no checksum, as proxies may
        have another name for the server."""
        address = self.address
        named = ["localhost"] if address.path else [address.host, f"{address.host}:{address.port}"]
        value = problem.get("value", "").lower()
        if problem.get("parameter") == "Host" and value not in (name.lower() for name in named):
            raise StreamError(f"{address}: the header Host was changed on its way: {detail}")

    def document(self) -> bytes:
        """The complete body of a successful answer that is no stream, as it was sent.

        Raises:
            StreamError: when it is cut, longer than a document may be, or damaged, or the answer to another request.
        """
        body = self.read_all()
        self.check_answer(body)
        return body

    def check_answer(self, body: bytes) -> None:
        """Refuses the answer to another request, and a body that was damaged, with a ``StreamError``."""
        self.check_request()
        self.check_header(BODY_HEADER, of_body(body, self.asked), "the answer was damaged on its way")

    def check_request(self) -> None:
        """Refuses the answer to another request, with a ``StreamError``."""
        self.check_header(REQUEST_HEADER, self.asked)

    def check_header(
        self, header: str, expected: str, otherwise: str = "the answer is to another request than was sent"
    ) -> None:
        """Refuses an answer that has not the value expected in a header, with a ``StreamError``."""
        found = self.body.headers.get(header)
        if found is None:
            raise StreamError(
                f"{self.address}: the answer has no {header}: it is not a PBA server, or one of another version, or a "
                "proxy between drops headers that it does not know"
            )
        if found != expected:
            shown = self.access.hide(str(found))
            raise StreamError(f"{self.address}: {otherwise}: {header} is {shown!r}, and should be {expected}")

    def _problem(self, body: bytes) -> Dict[str, str]:
        """What the body says of a refusal, if it is one as a PBA server sends it, or a proxy before it
        that does not let the client in."""
        status = self.body.status
        if not self.body.headers.get("content-type", "").startswith(PROBLEM):
            return {}
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            problem = json.loads(body)
            found = {name: problem.get(name) for name in ("parameter", "value", "allowed")}
            found.update(detail=problem["detail"], kind=problem.get("type"))
            is_ours = str(found["kind"]).startswith(URN)
            if problem["status"] == status if is_ours else status in STATUS_OF_ACCESS:
                told = {name: self.access.hide(str(text)) for name, text in found.items() if text is not None}
                # It goes into messages and a log, as one line.
                return {**told, "detail": on_one_line(told["detail"])}
        return {}

    def read_all(self) -> bytes:
        """The rest of the body; a ``StreamError`` when it is cut, or longer than a document may be."""
        pieces: List[bytes] = []
        total = 0
        deadline = time.monotonic() + max(self.stall_seconds, DOCUMENT_SECONDS)
        try:
            while total <= DOCUMENT_BYTES_MAX:
                if time.monotonic() > deadline:
                    raise StallError(f"{self.address} did not answer completely")
                piece = self.body.read1(PIECE_BYTES)
                if not piece:
                    # Of a body with a length, http.client takes an early end for the end.
                    if self.body.length:
                        raise Eof("the connection ended in the middle of the body")
                    return b"".join(pieces)
                pieces.append(piece)
                total += len(piece)
        except (OSError, http.client.HTTPException) as error:
            raise broken(error, self.stall_seconds) from error
        raise StreamError(f"{self.address} sent more than {DOCUMENT_BYTES_MAX} bytes")


def on_one_line(text: str) -> str:
    """A text with its line breaks and control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def unreachable(address: Address, error: OSError) -> UnreachableError:
    """The error for a failed connection, with advice."""
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = error.verify_code in UNKNOWN_AUTHORITY
        hint = "; pass ca=, the path of a PEM file with the authority that signed it" if unknown else ""
        reason = error.verify_message.rstrip(".")
        return UntrustedError(f"cannot trust {address} because of its certificate: {reason}{hint}")
    if isinstance(error, ssl.SSLError):
        return ConnectError(f"cannot speak TLS with {address}: {error}; does the server use http://?")
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, socket.timeout):
        reason = f"no answer within {CONNECT_SECONDS:g} seconds"
    told = f"cannot reach {address}: {reason}"
    if not isinstance(error, (ConnectionRefusedError, FileNotFoundError, socket.timeout)):
        return ConnectError(told)
    if not (address.path and _private.is_private(address.path)):
        return ConnectError(f"{told}; {address.advice()}")
    if _private.comes_back(address.path):
        away = ConnectError(f"{told}; the private server is being started again")
        away.comes_back = True
    else:
        away = ConnectError(f"{told}; the private server has ended")
        away.advice = "make the Loader again, or call serve() again"
    return away


def broken(error: Exception, stall_seconds: float) -> StreamError:
    """The error for a failure in the middle of a connection."""
    if isinstance(error, StreamError):
        return error
    if isinstance(error, MemoryError):
        return StreamError(f"not enough memory for the answer: {error}")
    # On Python 3.9 a timeout of the socket module is not a TimeoutError.
    if isinstance(error, socket.timeout):
        return StallError(f"no data for {stall_seconds:g} seconds")
    if isinstance(error, http.client.IncompleteRead):
        return Eof("the connection ended in the middle of the body")
    return Eof(f"the connection broke: {error}")
