"""Arrow IPC messages, each read into one aligned buffer that the arrays then look into.

A message is ``FF FF FF FF``, the length of its metadata (int32), the metadata (a flatbuffer,
padded) and a body. pyarrow decodes it; the framing is read here, because pyarrow would read the
body through a Python object in pieces, and cannot tell a cut stream from a short one.
"""

from __future__ import annotations

import struct
from typing import Optional

import numpy as np
import pyarrow as pa

from ._errors import StreamError
from ._http import Eof, Response

# Arrow's own recommendation, and a cache line.
ALIGNMENT = 64
CONTINUATION = 0xFFFFFFFF
# The schema of 1,000 class names takes 20 KiB; nobody sends more than this.
METADATA_BYTES_MAX = 16 * 1024 * 1024
# The server's own bound is 256 MiB unless it is configured otherwise.
BODY_BYTES_MAX = 4 * 1024 * 1024 * 1024

_PREFIX = struct.Struct("<Ii")
_UOFFSET = struct.Struct("<I")
_SOFFSET = struct.Struct("<i")
_VOFFSET = struct.Struct("<H")
_LONG = struct.Struct("<q")


def body_length(metadata: memoryview) -> int:
    """Bytes of the body that follows a message's metadata: field 3 of the table ``Message``.

    Raises:
        StreamError: when the metadata is not a flatbuffer, or the length out of bounds.
    """
    try:
        table = _UOFFSET.unpack_from(metadata, 0)[0]
        vtable = table - _SOFFSET.unpack_from(metadata, table)[0]
        slot = 4 + 2 * 3
        if vtable < 0 or slot + 2 > _VOFFSET.unpack_from(metadata, vtable)[0]:
            return 0
        field = _VOFFSET.unpack_from(metadata, vtable + slot)[0]
        length = _LONG.unpack_from(metadata, table + field)[0] if field else 0
    except struct.error as error:
        raise StreamError("the metadata of an Arrow message is broken") from error
    if not 0 <= length <= BODY_BYTES_MAX:
        raise StreamError(f"an Arrow message announces a body of {length} bytes")
    return length


class MessageReader:
    """Reads the messages of one Arrow IPC stream from the body of an HTTP answer."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._prefix = memoryview(bytearray(_PREFIX.size))

    def next(self) -> Optional[pa.Message]:
        """The next message; none at Arrow's end of stream, with HTTP's last chunk after it.

        The message's body starts at a multiple of 64 bytes, and nothing copies it again.

        Raises:
            StreamError: when the stream is cut or is not an Arrow stream.
        """
        self._read(self._prefix)
        continuation, metadata_bytes = _PREFIX.unpack(self._prefix)
        if continuation != CONTINUATION:
            raise StreamError("an Arrow message does not begin with its mark")
        if metadata_bytes == 0:
            self._end()
            return None
        if not 0 < metadata_bytes <= METADATA_BYTES_MAX:
            raise StreamError(f"an Arrow message announces {metadata_bytes} bytes of metadata")
        metadata = memoryview(bytearray(metadata_bytes))
        self._read(metadata)
        body_bytes = body_length(metadata)
        head_bytes = _PREFIX.size + metadata_bytes
        # pyarrow's pool gives memory that was used before without asking the kernel for pages.
        try:
            memory = pa.allocate_buffer(head_bytes + body_bytes + ALIGNMENT)
        except (pa.ArrowMemoryError, MemoryError) as error:
            raise StreamError(f"no memory for an Arrow message of {body_bytes} bytes") from error
        start = -(memory.address + head_bytes) % ALIGNMENT
        view = memoryview(memory).cast("B")[start : start + head_bytes + body_bytes]
        view[: _PREFIX.size] = self._prefix
        view[_PREFIX.size : head_bytes] = metadata
        self._read(view[head_bytes:])
        try:
            return pa.ipc.read_message(memory.slice(start, len(view)))
        except (pa.ArrowException, EOFError, OSError) as error:
            raise StreamError(f"an Arrow message is broken: {error}") from error

    def close(self) -> None:
        """Nothing to do: what was read is its receiver's."""

    def _read(self, view: memoryview) -> None:
        if self._response.read_into(view) != len(view):
            raise Eof("the body ended without Arrow's end of stream")

    def _end(self) -> None:
        if self._response.read_into(memoryview(bytearray(1))):
            raise StreamError("bytes follow Arrow's end of stream")


class _View:
    """Memory of an Arrow array as numpy's array interface; the array is kept alive."""

    def __init__(self, array: pa.Array, typestr: str, address: int, shape: tuple) -> None:
        self.array = array
        self.__array_interface__ = {
            "version": 3,
            "typestr": typestr,
            "data": (address, False),
            "shape": shape,
        }


def writable_view(array: pa.Array, dtype: np.dtype, shape: tuple) -> np.ndarray:
    """Looks at the values of a primitive array without copying them.

    pyarrow's own view is read-only, which torch warns about. The batch belongs to its receiver
    alone, so that writing to it is as good as to any array.

    Args:
        array: array without nulls.
        dtype: type of one value.
        shape: shape of the result; its product is ``len(array)``.
    """
    values = array.buffers()[1]
    if len(array) == 0 or values is None:
        return np.empty(shape, dtype)
    address = values.address + array.offset * dtype.itemsize
    return np.asarray(_View(array, dtype.str, address, shape))
