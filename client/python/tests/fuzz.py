"""The decoder of streams, given anything: a target of ``make fuzz``, and of ``test_fuzz.py``.

Run as a program it needs atheris, which has wheels for some Pythons only; ``make fuzz`` installs it.
"""

from __future__ import annotations

import http.client
import io
import struct
import sys
import zlib
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Callable, List, Optional, Tuple

REPOSITORY = Path(__file__).parents[3]
SEEDS = sorted((REPOSITORY / "tests/fuzz/seeds/stream").iterdir())
REGRESSIONS = REPOSITORY / "tests/fuzz/regressions/python"


def load() -> None:
    """Imports what is tested, which atheris has to see."""
    global np, pa, xxhash, StreamError, StreamReader, Metadata
    import numpy as np
    import pyarrow as pa
    import xxhash

    from pba_client import StreamError
    from pba_client._ipc import StreamReader
    from pba_client._metadata import Metadata


class Socket:
    """What the standard library reads an answer from."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._answer))


def response(body: bytes, pieces: List[int], checks: bool) -> Any:
    """An answer with a body in chunks of some lengths, or with its length ahead."""
    if pieces:
        chunks, place = b"", 0
        for length in [*pieces, len(body)]:
            piece = body[place : place + length]
            chunks += b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            place += len(piece)
        text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    else:
        text = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    answer = http.client.HTTPResponse(Socket(text))  # type: ignore[arg-type]
    answer.begin()
    return SimpleNamespace(body=answer, stall_seconds=1, checks=checks)


Rows = List[Tuple[bytes, bytes, bytes]]


def read(body: bytes, pieces: List[int], checks: bool) -> Optional[Tuple[bool, Rows]]:
    """Whether a stream is whole, and what its batches hold, up to the first that is refused; none without an
    acceptable schema."""
    batches: Rows = []
    try:
        reader = StreamReader(response(body, pieces, checks), SimpleNamespace(bytes=0))  # type: ignore[arg-type]
        metadata = Metadata.of(reader.schema)
        assert metadata.batches >= 0 and metadata.rows >= 0
        shape = tuple(reader.schema.field("image").type.shape)
    except StreamError:
        return None
    try:
        while True:
            batch = reader.next()
            if batch is None:
                return True, batches
            image, label, index = batch.image, batch.label, batch.index
            assert image.shape == (len(batch), *shape) and label.shape == index.shape == (len(batch),)
            assert (image.dtype, label.dtype, index.dtype) == (np.uint8, np.int64, np.uint64)
            # Touches all of it: a view beyond its memory ends the process.
            held = image.tobytes(), label.tobytes(), index.tobytes()
            decoded = batch.record_batch
            decoded.validate(full=True)
            assert decoded.column(1).to_pylist() == label.tolist() and decoded.column(2).to_pylist() == index.tolist()
            assert decoded.column(0).storage.flatten().to_numpy().tobytes() == held[0]
            batches.append(held)
    except StreamError:
        return False, batches


def damaged(body: bytes, random: Random) -> bytes:
    """A flipped bit, a cut, or zeros from a place on."""
    place = random.randrange(len(body))
    kind = random.randrange(4)
    if kind == 0:
        return body[:place]
    if kind == 1:
        length = min(random.randrange(1, 2000), len(body) - place)
        return body[:place] + bytes(length) + body[place + length :]
    return body[:place] + bytes([body[place] ^ 1 << random.randrange(8)]) + body[place + 1 :]


def check(body: bytes) -> None:
    """Fails unless what comes of a stream is valid, the same in any pieces, and damage is noticed."""
    random = Random(zlib.crc32(body))
    pieces = [random.randrange(1, 2000) for _ in range(random.randrange(1, 6))]
    for checks in (True, False):
        whole = read(body, [], checks)
        assert read(body, pieces, checks) == whole, f"in chunks of {pieces}"
        if checks and whole is not None:
            is_whole, batches = whole
            for _ in range(2):
                found = read(damaged(body, random), pieces, True)
                if found is not None:
                    # What was refused may be mended by chance.
                    count = len(found[1]) if is_whole else min(len(found[1]), len(batches))
                    assert found[1][:count] == batches[:count] and count <= len(batches), "damage that was not noticed"


def mended(body: bytes) -> bytes:
    """The same with the checksum of each message, as far as they can be read."""
    out, place, stream, number = bytearray(body), 0, 0, 0
    while place + 8 <= len(body):
        (length,) = struct.unpack_from("<I", body, place + 4)
        head = bytes(out[place : place + 8 + length])
        text = head.find(b"\x15\0\0\0xxh3:")
        try:
            message = pa.ipc.read_message(body[place:])
        except Exception:
            break
        if text < 0 or length == 0:
            break
        digits = slice(text + 9, text + 25)
        rest = b"" if message.body is None else message.body.to_pybytes()
        unset = head[: digits.start] + b"0" * 16 + head[digits.stop :]
        checksum = xxhash.xxh3_64_intdigest(rest, xxhash.xxh3_64_intdigest(unset, stream) ^ number)
        out[place + digits.start : place + digits.stop] = b"%016x" % checksum
        stream, number = stream or checksum, number + 1 if stream else 0
        place += len(head) + len(rest)
    return bytes(out[: len(body)])


def mutated(body: bytes, random: Random) -> bytes:
    """Some bytes changed, most often with right checksums."""
    out = bytearray(body)
    for _ in range(random.choice([1, 1, 2, 4])):
        place = random.randrange(len(out))
        kind = random.randrange(8)
        if kind < 3:
            out[place] ^= 1 << random.randrange(8)
        elif kind < 5:
            out[place] = random.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 5:
            number = random.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 524288])
            out[place : place + 4] = struct.pack("<I", number)
        elif kind == 6:
            del out[place : place + random.randrange(1, 64)]
        else:
            out[place:place] = out[place : place + random.randrange(1, 64)]
        if not out:
            return b""
    return bytes(out) if random.randrange(8) == 0 else mended(bytes(out))


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["pba_client", "pyarrow.ipc"]):
        load()

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        data = atheris.Mutate(data, size_max)
        return data if seed % 8 == 0 else mended(data)[:size_max]

    target: Callable[[bytes], None] = check
    atheris.Setup(sys.argv, target, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
