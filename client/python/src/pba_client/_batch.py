"""Some images with their labels."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pyarrow as pa

from ._ipc import writable_view

_UINT8 = np.dtype("u1")
_INT64 = np.dtype("<i8")
_UINT64 = np.dtype("<u8")


class Batch:
    """Some images with their labels.

    The arrays are views into the memory that the batch was received in: nothing is copied.
    They may be written to; ``record_batch`` shows what was written. The memory lives as long as
    the batch or any array of it.

    Attributes:
        number: number of the batch in its shard of the epoch.
        record_batch: the same as a ``pyarrow.RecordBatch``, whose column ``image`` is a
            ``pyarrow.FixedShapeTensorArray``.
    """

    __slots__ = ("_image", "number", "record_batch")

    def __init__(self, number: int, record_batch: pa.RecordBatch) -> None:
        self.number = number
        self.record_batch = record_batch
        self._image: Optional[np.ndarray] = None

    def __len__(self) -> int:
        """Images of the batch."""
        return self.record_batch.num_rows

    @property
    def image(self) -> np.ndarray:
        """Pixels: uint8 [N, H, W, 3], RGB."""
        if self._image is None:
            column = self.record_batch.column(0)
            shape = (len(column), *column.type.shape)
            # A received column begins where its buffer does, so its values need no slicing.
            self._image = writable_view(column.storage.values, _UINT8, shape)
        return self._image

    @property
    def label(self) -> np.ndarray:
        """Classes: int64 [N]."""
        return writable_view(self.record_batch.column(1), _INT64, (len(self),))

    @property
    def index(self) -> np.ndarray:
        """Positions in the dataset: uint64 [N]."""
        return writable_view(self.record_batch.column(2), _UINT64, (len(self),))

    @property
    def table(self) -> pa.Table:
        """The same as a ``pyarrow.Table``."""
        return pa.Table.from_batches([self.record_batch])

    def __repr__(self) -> str:
        return f"<Batch {self.number}: {len(self)} images of {'x'.join(map(str, self.image.shape[1:]))}>"
