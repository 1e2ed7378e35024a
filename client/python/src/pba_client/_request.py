"""The parameters of an epoch, as the server expects them."""

from __future__ import annotations

import re
from numbers import Integral
from typing import Any, Dict, Optional, Sequence, Tuple, Union
from urllib.parse import quote, urlencode

import numpy as np

ARROW_STREAM = "application/vnd.apache.arrow.stream"

Shard = Union[str, Tuple[int, int]]
Policy = Union[str, Sequence[int]]


def segment(name: object) -> str:
    """Escapes a name for use as one segment of a path."""
    return quote(str(name), safe="")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)


def plain(value: Any) -> Any:
    """An integer of NumPy as one of Python, so that a state that holds it can be written as JSON."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


class EpochRequest:
    """A request for a stream of an epoch.

    Values are checked by the server, not here; it knows its data and reports the allowed values.
    Parameters that are None are not sent, and the server's defaults apply.
    """

    def __init__(
        self,
        dataset: str,
        epoch: int,
        *,
        codec: Optional[str] = None,
        shard: Optional[Shard] = None,
        policy: Optional[Policy] = None,
        skip: int = 0,
        start: int = 0,
        step: int = 1,
        **parameters: Any,
    ) -> None:
        if shard is not None and not isinstance(shard, str):
            index, count = shard
            shard = f"{index}/{count}"
        if policy is not None and not isinstance(policy, str):
            policy = ",".join(str(level) for level in policy)
        self.dataset = dataset
        self.epoch = plain(epoch)
        self.codec = codec
        self.skip = plain(skip)
        self.start = plain(start)
        self.step = plain(step)
        given = {"shard": shard, "policy": policy, **parameters}
        self.parameters: Dict[str, str] = {
            name: _text(value) for name, value in sorted(given.items()) if value is not None
        }

    def recipe_key(self) -> Tuple[str, ...]:
        """What tells this request from others, but for the epoch and which part of it is sent."""
        parts = ("shard", "batch_size")
        deciding = (f"{name}={value}" for name, value in self.parameters.items() if name not in parts)
        return (self.dataset, *deciding)

    def number(self, received: int) -> int:
        """Number, in the shard, of the batch after ``received`` ones."""
        # With no batch received nothing is computed, so that invalid values reach the server.
        return self.start + received * self.step if received else self.start

    def query(self, received: int) -> Dict[str, str]:
        """The parameters for the batches that are missing after ``received`` ones."""
        query = dict(self.parameters)
        for name, value, default in (("skip", self.skip, 0), ("start", self.number(received), 0), ("step", self.step, 1)):
            if value != default or isinstance(value, bool):
                query[name] = _text(value)
        return query

    def target(self, received: int) -> str:
        """Path and query for the batches that are missing after ``received`` ones."""
        query = self.query(received)
        path = f"/v1/datasets/{segment(self.dataset)}/epochs/{segment(self.epoch)}/batches"
        return f"{path}?{urlencode(query)}" if query else path

    def accept(self) -> str:
        """The media type to ask for."""
        if self.codec is None:
            return ARROW_STREAM
        # Quotes or line breaks would end the header field early.
        codec = re.sub(r"[^A-Za-z0-9_.-]", "", str(self.codec))
        return f'{ARROW_STREAM}; codecs="{codec}"'

    def state(self) -> Dict[str, Any]:
        """Everything that must be equal for batch numbers to mean the same samples."""
        return {
            "dataset": self.dataset,
            "epoch": self.epoch,
            "skip": self.skip,
            "start": self.start,
            "step": self.step,
            "parameters": dict(self.parameters),
        }
