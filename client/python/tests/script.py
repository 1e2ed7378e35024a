"""A server made of a few lines, which gives whatever answers a test wants."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import threading
from typing import Callable, Iterator, List, Tuple, Union
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
import xxhash


# Bytes, to which what signs an answer is added, or a function of the request that gives those to send.
Answer = Union[bytes, Callable[[bytes], bytes]]


class Script:
    """Answers each connection with the next of some answers."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self.requests: List[str] = []
        self._thread = threading.Thread(target=self._run, name="script")
        self._thread.start()

    def _run(self) -> None:
        for answer in self._answers:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(10)
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = peer.recv(65536)
                    if not piece:
                        break
                    request += piece
                self.requests.append(request.decode())
                try:
                    peer.sendall(answer(request) if callable(answer) else of_the_request(request.decode(), answer))
                except OSError:
                    pass

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        # Closing does not wake accept() everywhere; a connection does.
        try:
            socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])), 0.2).close()
        except OSError:
            pass
        self._thread.join(10)


def of_the_request(request: str, answer: bytes) -> bytes:
    """An answer also says which request it answers, and with which schema or body."""
    status, _, rest = answer.partition(b"\r\n")
    head, end, body = rest.partition(b"\r\n\r\n")
    if b"pba-request" in answer.lower() or not request or not end or not re.match(rb"HTTP/1.[01] \d+ ", status):
        return answer
    asked = sum_of(*request.split(" ")[:2])
    if STREAM.encode() in head:
        signed = answers(asked, next(messages(body), (b"", b""))[0])
    else:
        signed = of_document(asked, body)
    return status + b"\r\n" + signed.encode() + rest


def sum_of(method: str, target: str) -> int:
    """The checksum of a request."""
    asked, text = urlsplit(target), f"{method} "
    for part in map(unquote, asked.path[1:].split("/")):
        text += f"/{len(part.encode())}:{part}"
    for name, value in parse_qsl(asked.query, keep_blank_values=True):
        text += f"?{len(name.encode())}:{name}={len(value.encode())}:{value}"
    return xxhash.xxh3_64_intdigest(text.encode())


def of_document(asked: int, body: bytes) -> str:
    """Headers of an answer that is no stream."""
    return f"PBA-Request: {asked:016x}\r\nPBA-Body: {xxhash.xxh3_64_intdigest(body, asked):016x}\r\n"


def answers(asked: int, schema: bytes) -> str:
    """Headers of an answer to a request."""
    return f"PBA-Request: {asked:016x}\r\nPBA-Schema: {checksum_of(schema, b'', asked, 0):016x}\r\n"


STREAM = "application/vnd.apache.arrow.stream"


def answer(body: bytes, status: str = "200 OK", kind: str = STREAM, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def stream(count: int, announced: int, first: int = 0, **changed: str) -> bytes:
    """A stream of one-image batches, with metadata of its own; ``first`` is the number of the first."""
    metadata = {
        "pba.checksum": UNSET, "pba.recipe": "r",
        "pba.version": "0", "pba.dataset": "d", "pba.schedule": "s", "pba.epoch": "0", "pba.seed": "0",
        "pba.batches": str(announced), "pba.rows": str(announced), "pba.mean": "[0,0,0]",
        "pba.std": "[1,1,1]", "pba.classes": "[]",
    }  # fmt: skip
    metadata.update({f"pba.{key}": value for key, value in changed.items()})
    tensor = pa.fixed_shape_tensor(pa.uint8(), [1, 1, 3], dim_names=["H", "W", "C"])
    fields = [pa.field("image", tensor), pa.field("label", pa.int64()), pa.field("index", pa.uint64())]
    schema = pa.schema(fields, metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for number in range(first, first + count):
            storage = pa.FixedSizeListArray.from_arrays(pa.array([number, 1, 2], pa.uint8()), 3)
            image = pa.ExtensionArray.from_storage(tensor, storage)
            columns = [image, pa.array([0], pa.int64()), pa.array([number], pa.uint64())]
            writer.write_batch(pa.record_batch(columns, schema=schema), custom_metadata={"pba.checksum": UNSET})
    return sealed(sink.getvalue())


UNSET = "xxh3:0000000000000000"


CHECKSUM = re.compile(rb"xxh3:([0-9a-f]{16})")


def sealed(stream: bytes) -> bytes:
    """The same with the checksum of each message."""
    stream = CHECKSUM.sub(UNSET.encode(), stream)
    out, before, number = b"", 0, 0
    for head, body in messages(stream):
        checksum = checksum_of(head, body, before, number)
        out += head.replace(UNSET.encode(), b"xxh3:%016x" % checksum, 1) + body
        before, number = before or checksum, number + 1 if before else 0
    return out + stream[len(out) :]


def messages(stream: bytes) -> Iterator[Tuple[bytes, bytes]]:
    """Heads and bodies of the messages of a stream, as far as they can be read."""
    place = 0
    while place + 8 < len(stream):
        _, length = struct.unpack_from("<Ii", stream, place)
        try:
            message = pa.ipc.read_message(stream[place:])
        except (pa.ArrowException, OSError, EOFError):
            return
        head = stream[place : place + 8 + length]
        body = b"" if message.body is None else message.body.to_pybytes()
        yield head, body
        place += len(head) + len(body)


def checksum_of(head: bytes, body: bytes, before: int, number: int) -> int:
    """The checksum of a message, as ``client/wire/src/checksum.rs`` tells."""
    return xxhash.xxh3_64_intdigest(body, xxhash.xxh3_64_intdigest(CHECKSUM.sub(UNSET.encode(), head), before) ^ number)


PROBLEM = "application/problem+json"


def problem(detail: str, status: int, kind: str) -> str:
    """The body of a refusal."""
    return json.dumps({"type": f"urn:pba:problem:{kind}", "title": "t", "status": status, "detail": detail})


def refusal(status: int, detail: str) -> bytes:
    return answer(problem(detail, status, "x").encode(), f"{status} No", PROBLEM)


def full(retry_after: str = "0") -> bytes:
    body = problem("all streams are taken", 429, "full").encode()
    return answer(body, "429 Too Many Requests", PROBLEM, f"Retry-After: {retry_after}\r\n")
