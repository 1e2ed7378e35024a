"""A batch of images with their labels, in the memory that they were received in."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, Tuple, Union

import numpy as np
import pyarrow as pa

from ._errors import StreamError

# Of image, label and index, as numpy's array interface writes them.
_TYPES = ("|u1", "<i8", "<u8")


class Layout(NamedTuple):
    """The layout of a batch: the same for every batch whose head is the same, byte for byte."""

    # What precedes the body: a mark, the length of the metadata, and these.
    head: bytes
    body_bytes: int
    # Of each column, the shape as an array and the place of its values in the body.
    columns: Tuple[Tuple[Tuple[int, ...], int], ...]

    @classmethod
    def of(cls, head: bytes, body: pa.Buffer, record_batch: pa.RecordBatch) -> Optional[Layout]:
        """The layout of a decoded batch; none if its columns are not in its body, as after compression."""
        columns = []
        for column in record_batch.columns:
            values = _values(column)
            place = -1 if values is None else values.address - body.address
            if not 0 <= place <= body.size - values.size:
                return None
            check_values(column)
            columns.append((_shape(column), place))
        return cls(head, body.size, tuple(columns))


class Batch:
    """A batch of images with their labels.

    The arrays are views into the memory that the batch was received in: nothing is copied.
    They may be written to; ``record_batch`` shows what was written. The memory lives as long as
    the batch or any array of it.

    Attributes:
        number: number of the batch in its shard of the epoch.
    """

    __slots__ = ("_body", "_layout", "_record_batch", "_schema", "number")

    def __init__(
        self,
        schema: pa.Schema,
        record_batch: Optional[pa.RecordBatch] = None,
        layout: Optional[Layout] = None,
        body: Optional[pa.Buffer] = None,
    ) -> None:
        # Either decoded, or a body of a known layout, which is decoded on demand.
        self.number = 0
        self._schema = schema
        self._record_batch = record_batch
        self._layout = layout
        self._body = body

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
            assert self._layout is not None
            message = pa.ipc.read_message(pa.PythonFile(_Pieces(self._layout.head, self._body), mode="r"))
            self._record_batch = pa.ipc.read_record_batch(message, self._schema)
        return self._record_batch

    @property
    def table(self) -> pa.Table:
        """The same as a ``pyarrow.Table``."""
        return pa.Table.from_batches([self.record_batch])

    def _view(self, number: int) -> np.ndarray:
        if self._layout is not None:
            shape, place = self._layout.columns[number]
            return np.ndarray(shape, _TYPES[number], self._body, place)
        column = self.record_batch.column(number)
        values = _values(column)
        if values is None or len(column) == 0:
            return np.empty(_shape(column), _TYPES[number])
        check_values(column)
        return np.asarray(_Writable(values, _TYPES[number], _shape(column)))

    def __repr__(self) -> str:
        return f"<Batch {self.number}: {len(self)} images of {'x'.join(map(str, self.image.shape[1:]))}>"


def _values(column: pa.Array) -> Optional[pa.Buffer]:
    # The last buffer of a list's array is that of its values. A received column begins where its
    # buffer does.
    return column.buffers()[-1]


def check_values(column: pa.Array) -> None:
    """Refuses a column that does not match the stream's schema, so that views would read past its end.

    Raises:
        StreamError: when it has nulls, or fewer values than its shape says.
    """
    values, item = _values(column), getattr(column.type, "value_type", column.type).bit_width // 8
    if column.null_count or values is None or values.size < math.prod(_shape(column)) * item:
        raise StreamError(f"a batch is broken: a column of {column.type} has fewer values than rows")


def _shape(column: pa.Array) -> Tuple[int, ...]:
    return (len(column), *getattr(column.type, "shape", ()))


class _Writable:
    """Memory as numpy's array interface; its owner is kept alive.

    pyarrow's own view is read-only, which torch warns about. The batch belongs to its receiver
    alone, so that writing to it is safe.
    """

    def __init__(self, owner: pa.Buffer, typestr: str, shape: Tuple[int, ...]) -> None:
        self.owner = owner
        data = (owner.address, False)
        self.__array_interface__ = {"version": 3, "typestr": typestr, "data": data, "shape": shape}


class _Pieces:
    """A message that was read, as a file to read it from again."""

    closed = False

    def __init__(self, head: bytes, body: Optional[pa.Buffer]) -> None:
        self._head = head
        self._body = body

    def read(self, size: int) -> Union[bytes, pa.Buffer]:
        piece, self._head = self._head[:size], self._head[size:]
        return piece or self._body
