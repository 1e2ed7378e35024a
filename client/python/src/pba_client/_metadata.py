"""The metadata of a stream."""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple, Tuple

import pyarrow as pa

from ._errors import StreamError


class Metadata(NamedTuple):
    """The metadata of a stream.

    Attributes:
        version: version of the server.
        dataset: digest of the dataset's split.
        schedule: digest of the schedule or policy, or ``none``, or ``identity``.
        recipe: digest of everything that pixels and order depend on, in all epochs of a run.
        epoch: epoch, 0-based.
        seed: seed of every random decision.
        batches: how many batches the answer holds.
        rows: how many images the answer holds.
        mean: mean per channel, 0..1; of the training split where there is one.
        std: standard deviation per channel, 0..1; likewise.
        classes: class names, by label.
    """

    version: str
    dataset: str
    schedule: str
    recipe: str
    epoch: int
    seed: int
    batches: int
    rows: int
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    classes: Tuple[str, ...]

    @classmethod
    def of(cls, schema: pa.Schema) -> Metadata:
        """Reads the metadata of a stream's schema, whose columns are those of a batch.

        Raises:
            StreamError: when something is missing or invalid.
        """
        try:
            pairs = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
            values: Dict[str, Any] = {name: pairs[f"pba.{name}"] for name in cls._fields}
            for name in ("epoch", "seed", "batches", "rows"):
                values[name] = int(values[name])
            for name in ("mean", "std", "classes"):
                values[name] = tuple(json.loads(values[name]))
            metadata = cls(**values)
            if not all(isinstance(number, (int, float)) for number in metadata.mean + metadata.std):
                raise ValueError("mean and std are not numbers")
            if metadata.batches < 0 or metadata.rows < 0:
                raise ValueError(f"{metadata.batches} batches of {metadata.rows} rows")
        except KeyError as error:
            raise StreamError(f"its schema has no {error.args[0]}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise StreamError(f"its schema is not a PBA server's: {error}") from error
        _check_columns(schema)
        if metadata.rows and not metadata.batches:
            raise StreamError(f"it announces {metadata.rows} rows but no batches")
        return metadata


def _check_columns(schema: pa.Schema) -> None:
    """Refuses columns that the arrays of a batch would misread."""
    try:
        names_types = [(field.name, field.type) for field in schema]
    except UnicodeDecodeError as error:
        raise StreamError("its columns have names that are not text") from error
    image = names_types[0][1] if names_types else None
    is_tensor = isinstance(image, pa.FixedShapeTensorType)
    is_image = is_tensor and image.value_type == pa.uint8() and len(image.shape) == 3
    if not is_image or names_types != [("image", image), ("label", pa.int64()), ("index", pa.uint64())]:
        found = ", ".join(f"{name} ({kind})" for name, kind in names_types) or "none"
        raise StreamError(
            f"its columns are {found[:500]}; expected image (uint8 tensors), label (int64) and index (uint64)"
        )
