"""A batch of images with their labels, in the memory that they were received in."""

from __future__ import annotations

import math
import struct
from types import SimpleNamespace
from typing import NamedTuple, Optional, Tuple

import numpy as np
import pyarrow as pa

from ._checksum import Place
from ._errors import StreamError

# Of arrays, as Arrow advises.
ALIGNMENT = 64
# Of image, label and index, as numpy's array interface writes them.
_TYPES = ("|u1", "<i8", "<u8")


class Layout(NamedTuple):
    """The layout of a message: the same for every batch whose head is the same, byte for byte."""

    head: bytes
    # Bytes in front of the head in the buffer that holds the message.
    padding: int
    # Where the head has a checksum, which differs from batch to batch.
    checksum: Optional[Place]
    # The head before the checksum and after it; all of it, and nothing, if it has none.
    before: bytes
    after: bytes
    body_bytes: int
    # Of each column, the shape as an array and the place of its values in that buffer.
    columns: Tuple[Tuple[Tuple[int, ...], int], ...]

    @classmethod
    def of(
        cls, head: bytes, padding: int, checksum: Optional[Place], body: pa.Buffer, record_batch: pa.RecordBatch
    ) -> Optional[Layout]:
        """The layout of a decoded batch; none if its columns are not in its body, as after compression."""
        columns = []
        for column in record_batch.columns:
            values = column.buffers()[-1]
            place = -1 if values is None else values.address - body.address
            if not 0 <= place <= body.size - values.size:
                return None
            columns.append((_shape(column), padding + len(head) + place))
        start, end = (len(head), len(head)) if checksum is None else (checksum.start, checksum.end)
        return cls(head, padding, checksum, head[:start], head[end:], body.size, tuple(columns))

    def may_begin(self, ahead: bytes) -> bool:
        """Whether a message may have this layout, of which less than a head is known."""
        end = min(len(ahead), len(self.before))
        return self.before[:end] == ahead[:end]

    def begins(self, ahead: bytes) -> bool:
        """Whether these bytes begin with a head of this layout."""
        return ahead.startswith(self.before) and ahead.startswith(self.after, len(self.head) - len(self.after))


def head_of(message: pa.Message) -> bytes:
    """What precedes the body of a message: a mark, the length of the metadata, and these."""
    metadata = message.metadata.to_pybytes()
    return struct.pack("<Ii", 0xFFFFFFFF, len(metadata)) + metadata


def decoded(message: pa.Message, schema: pa.Schema) -> pa.RecordBatch:
    """The batch of a message, with no more rows than values.

    Raises:
        StreamError: when its lengths are wrong: pyarrow believes them, and would read past the end.
        pa.ArrowException, OSError: when it cannot be decoded.
    """
    record_batch = pa.ipc.read_record_batch(message, schema)
    try:
        record_batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise StreamError(f"a batch is broken: {error}") from error
    for column in record_batch.columns:
        if len(column) != record_batch.num_rows:
            raise StreamError(f"a batch is broken: {len(column)} of {record_batch.num_rows} rows in a column")
        _shape(column)
    return record_batch


def padding(head: bytes) -> int:
    """Bytes in front of a message's head, after which its body is aligned."""
    return -len(head) % ALIGNMENT


class Batch:
    """A batch of images with their labels.

    The arrays are views into the memory that the batch was received in: nothing is copied.
    They may be written to; ``record_batch`` shows what was written. The memory lives as long as
    the batch or any array of it.

    Attributes:
        number: number of the batch in its shard of the epoch.
    """

    __slots__ = ("_layout", "_message", "_record_batch", "_schema", "number")

    def __init__(
        self,
        schema: pa.Schema,
        record_batch: Optional[pa.RecordBatch] = None,
        layout: Optional[Layout] = None,
        message: Optional[pa.Buffer] = None,
    ) -> None:
        # Either decoded, or a message of a known layout, which is decoded on demand.
        self.number = 0
        self._schema = schema
        self._record_batch = record_batch
        self._layout = layout
        self._message = message

    def __len__(self) -> int:
        """Images of the batch."""
        return self.record_batch.num_rows if self._layout is None else self._layout.columns[0][0][0]

    @property
    def image(self) -> np.ndarray:
        """Pixels: uint8 [N, H, W, 3], RGB."""
        return self._view(0)

    @property
    def label(self) -> np.ndarray:
        """Classes: int64 [N]."""
        return self._view(1)

    @property
    def index(self) -> np.ndarray:
        """Positions in the dataset: uint64 [N]."""
        return self._view(2)

    @property
    def record_batch(self) -> pa.RecordBatch:
        """The same as a ``pyarrow.RecordBatch``, whose column ``image`` is a
        ``pyarrow.FixedShapeTensorArray``."""
        if self._record_batch is None:
            assert self._layout is not None and self._message is not None
            message = pa.ipc.read_message(self._message.slice(self._layout.padding))
            self._record_batch = decoded(message, self._schema)
        return self._record_batch

    @property
    def table(self) -> pa.Table:
        """The same as a ``pyarrow.Table``."""
        return pa.Table.from_batches([self.record_batch])

    def _view(self, number: int) -> np.ndarray:
        if self._layout is not None:
            shape, place = self._layout.columns[number]
            message = self._message
            if message.is_mutable:
                return np.ndarray(shape, _TYPES[number], message, place)
            return _writable(message, message.address + place, _TYPES[number], shape)
        column = self.record_batch.column(number)
        shape = _shape(column)
        if len(column) == 0:
            return np.empty(shape, _TYPES[number])
        values = column.buffers()[-1]
        return _writable(values, values.address, _TYPES[number], shape)

    def __repr__(self) -> str:
        return f"<Batch {self.number}: {len(self)} images of {'x'.join(map(str, self.image.shape[1:]))}>"


def _writable(owner: pa.Buffer, address: int, kind: str, shape: Tuple[int, ...]) -> np.ndarray:
    """An array at an address in a buffer, which it keeps.

    pyarrow's own view is read-only, which torch warns about. The batch belongs to its receiver alone, so
    that writing to it is safe.
    """
    interface = {"version": 3, "typestr": kind, "data": (address, False), "shape": shape}
    return np.asarray(SimpleNamespace(owner=owner, __array_interface__=interface))


def _shape(column: pa.Array) -> Tuple[int, ...]:
    """The shape of a column as an array.

    Raises:
        StreamError: when it has nulls, or fewer values than its shape says, so that views would read
            past its end.
    """
    shape = (len(column), *getattr(column.type, "shape", ()))
    item_bytes = getattr(column.type, "value_type", column.type).bit_width // 8
    # The last buffer of a list's array is that of its values. A received column begins where its
    # buffer does.
    values = column.buffers()[-1]
    if column.null_count or (0 if values is None else values.size) < math.prod(shape) * item_bytes:
        raise StreamError(f"a batch is broken: a column of {column.type} has fewer values than rows")
    return shape
