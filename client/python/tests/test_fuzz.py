"""Streams that are anything, in a bounded form of what ``make fuzz TARGET=python`` does."""

from __future__ import annotations

from random import Random

import fuzz
import pytest

fuzz.load()


@pytest.mark.parametrize("seed", fuzz.SEEDS, ids=lambda path: path.stem)
def test_mutations_of_answers(seed: "fuzz.Path") -> None:
    body = seed.read_bytes()
    assert fuzz.mended(body) == body, "a seed has the checksums that mutations get"
    whole = fuzz.read(body, [], True)
    assert whole is not None and whole[0] and (whole[1] or seed.stem == "empty")
    fuzz.check(body)
    random = Random(1)
    for _ in range(150):
        fuzz.check(fuzz.mutated(body, random))


def test_what_once_found_something() -> None:
    for path in sorted(fuzz.REGRESSIONS.glob("*")):
        fuzz.check(path.read_bytes())
