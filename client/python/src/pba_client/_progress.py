"""How far an epoch has come, and positions to continue it from."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Dict, Optional

import pyarrow as pa

from ._http import Access
from ._metadata import Metadata
from ._request import EpochRequest

# In the state of an epoch, to distinguish later formats.
STATE_VERSION = 3
# Of an epoch, a batch or samples: what any language can count.
NUMBER_MAX = 2**63 - 1


@dataclass
class Progress:
    """How far an epoch has come, which may outlive it; the numbers are those of ``Epoch``."""

    request: EpochRequest
    # Of the complete answer; known once a server has answered.
    schema: Optional[pa.Schema] = None
    metadata: Optional[Metadata] = None
    # Of the server that is asked now.
    replica: int = 0
    received: int = 0
    resumes: int = 0
    bytes: int = 0
    server_waited_seconds: float = 0.0

    def state(self) -> Dict[str, Any]:
        """The position after the batches that the loop has taken."""
        assert self.metadata is not None
        position = {"epoch": self.request.epoch, "batch": self.request.number(self.received)}
        return state_of(position, self.request.state(), self.metadata)


def state_of(position: Dict[str, int], request: Dict[str, Any], metadata: Metadata) -> Dict[str, Any]:
    """A position, with what must be the same where it is loaded; it can be written as JSON."""
    return {
        "version": STATE_VERSION,
        **position,
        "request": request,
        "dataset_digest": metadata.dataset,
        "schedule_digest": metadata.schedule,
        "recipe_digest": metadata.recipe,
    }


def check_state(
    state: Any, request: Dict[str, Any], metadata: Metadata, access: Access, counts: str = "batch"
) -> None:
    """Refuses a state that does not belong to a request and the data that is served.

    Args:
        counts: what its position counts.

    Raises:
        ValueError: when ``state_dict`` cannot have returned it, or in another request only, in which
            the number of a batch means other samples.
        ChangedError: when the dataset or the schedule has changed, or anything else that pixels or
            order depend on.
    """
    if not isinstance(state, dict):
        raise ValueError(f"a state is a dict, as returned by state_dict(); this is a {type(state).__name__}")
    if state.get("version") != STATE_VERSION:
        raise ValueError(
            f"the state has version {state.get('version')!r}; expected {STATE_VERSION}, in which the position of a "
            "loader counts samples"
        )
    for key in ("epoch", counts):
        value = state.get(key)
        if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
            raise ValueError(f"the state's {key} is {value!r}; expected an integer of 0 to {NUMBER_MAX}")
    saved = state.get("request")
    parameters = saved.get("parameters", {}) if isinstance(saved, dict) else None
    if not isinstance(saved, dict) or not isinstance(parameters, dict) or not all(map(_is_text, [*saved, *parameters])):
        raise ValueError(f"the state's request is {saved!r}; expected a dict, with a dict of parameters")
    missing = {"dataset_digest", "schedule_digest", "recipe_digest"} - set(state)
    if missing:
        raise ValueError(f"the state has no {', '.join(sorted(missing))}")
    served = state_of({}, {}, metadata)
    if counts == "samples" and all(served[key] == state[key] for key in served if key.endswith("_digest")):
        # Then samples are the same ones, whatever they were asked for by.
        return
    differences = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for before, now in ((saved, request), (parameters, request["parameters"]))
        for name in sorted({**before, **now})
        if name != "parameters" and before.get(name) != now.get(name)
    ]
    if differences:
        raise ValueError(
            "the saved position belongs to another request, in which it "
            f"means other samples: {'; '.join(differences)}"
        )
    source = ", ".join(map(str, access.addresses))
    access.check_same(source, "pba.dataset", metadata.dataset, state["dataset_digest"])
    access.check_same(source, "pba.schedule", metadata.schedule, state["schedule_digest"])
    access.check_same(source, "pba.recipe", metadata.recipe, state["recipe_digest"])


def _is_text(value: object) -> bool:
    return isinstance(value, str)
