"""Which rank this process is of how many."""

from __future__ import annotations

import os
from typing import Any, Tuple

from ._errors import PbaError


def rank_and_world_size(distributed: Any) -> Tuple[int, int]:
    """The rank of this process and the number of ranks: of the process group of ``torch.distributed``, else of
    ``RANK`` and ``WORLD_SIZE`` in the environment, as torchrun sets them, else 0 and 1.

    Raises:
        PbaError: when these disagree; when there is no group, and only one of the two is in the environment: another
            part of the epoch would be read than is meant.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return _environment() or (0, 1)
    group = (distributed.get_rank(), distributed.get_world_size())
    told = _environment() if "RANK" in os.environ and "WORLD_SIZE" in os.environ else None
    if told is not None and told != group:
        raise PbaError(
            f"this is rank {group[0]} of {group[1]} in the process group, and rank {told[0]} of {told[1]} by RANK and "
            "WORLD_SIZE; pass rank= and world_size= to say which is meant"
        )
    return group


def _environment() -> "Tuple[int, int] | None":
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None and (world_size is None or world_size.strip() == "1"):
        return None
    try:
        told = int(rank or ""), int(world_size or "")
    except ValueError:
        told = (-1, 0)
    if not 0 <= told[0] < told[1]:
        raise PbaError(
            f"RANK is {rank!r} and WORLD_SIZE {world_size!r} in the environment; expected 0 <= RANK < WORLD_SIZE, or "
            "neither; or pass rank= and world_size="
        )
    return told
