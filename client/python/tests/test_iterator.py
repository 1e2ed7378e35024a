"""All batches of a run as one iterator."""

from __future__ import annotations

import json
from typing import List, Tuple

import pytest
from conftest import Server

from pba_client import BatchIterator, ChangedError, Loader

Row = Tuple[int, List[int]]


def loader(server: Server, **options) -> Loader:  # type: ignore[no-untyped-def]
    return Loader(server.url, "shapes", **{"batch_size": 500, "split": "test", "shuffle": True, **options})


def rows(batches: BatchIterator, count: int = 1000) -> List[Row]:
    taken = []
    for batch in batches:
        taken.append((batches.epoch, batch.index.tolist()))
        if len(taken) == count:
            break
    return taken


def test_epochs_come_one_after_another(server: Server) -> None:
    with BatchIterator(loader(server), 3) as batches:
        found = rows(batches)
        assert rows(batches) == [] and batches.epoch == 3
    plain = loader(server)
    assert found == [(epoch, batch.index.tolist()) for epoch in range(3) for batch in plain.epoch(epoch)]


@pytest.mark.parametrize("taken", [0, 1, 3, 4, 5, 11, 12])
def test_states(server: Server, taken: int) -> None:
    whole = rows(BatchIterator(loader(server), 3))
    with BatchIterator(loader(server), 3) as batches:
        first = rows(batches, taken) if taken else []
        state = json.loads(json.dumps(batches.get_state()))
        # Closed in the middle, it goes on there; and it goes back to a state.
        batches.close()
        assert batches.get_state() == state
        assert first + rows(batches, 2) == whole[: taken + 2]
        batches.set_state(state)
        assert rows(batches) == whole[taken:]
    with BatchIterator(loader(server, batch_size=250), 3) as batches:
        batches.set_state(state)
        smaller = rows(batches)
    assert [index for _, indices in smaller for index in indices] == [i for _, row in whole[taken:] for i in row]


def test_what_is_wrong_is_refused(server: Server) -> None:
    for epochs in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="epochs is .*; expected an integer of 0 or more"):
            BatchIterator(loader(server), epochs)  # type: ignore[arg-type]
    with BatchIterator(loader(server), 2) as batches:
        first = rows(batches, 1)
        state = batches.get_state()
        beyond = {**state, "epoch": 2, "samples": 1}
        for wrong in ({}, {**state, "samples": 2001}, {**state, "epoch": 3}, {**state, "epoch": 2**63}, beyond):
            with pytest.raises(ValueError):
                batches.set_state(wrong)
        with pytest.raises(ChangedError):
            batches.set_state({**state, "dataset_digest": "other"})
        # And nothing is lost.
        assert first + rows(batches) == rows(BatchIterator(loader(server), 2))
    with BatchIterator(loader(server, headspace=True), 1) as batches:
        next(batches)
        batches.close()
