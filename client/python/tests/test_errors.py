"""Errors travel between processes, and stay what they are."""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
from typing import List, Type

import pytest

from pba_client import ChangedError, CutError, PbaError, RefusedError, StreamError, UnreachableError, _errors, _http

FULL: List[PbaError] = [
    RefusedError(
        "it is full (429)", status=429, detail="it is full", parameter="p", value="v", allowed="a", kind="k", retry_after=2.5
    ),
    CutError("it was cut", received=2, expected=6, attempts=3, seconds=1.5, reason="no server answers"),
    ChangedError.of("http://h:80", "pba.recipe", "x", "y"),
    UnreachableError("nobody is there"),
    StreamError("no stream"),
    _http.ConnectError("nobody is there"),
    _http.UntrustedError("who is there?"),
    _http.ForeignError("somebody else is there"),
    _http.StallError("nothing comes"),
    _http.Eof("it ended"),
]
KINDS = [
    kind
    for module in (_errors, _http)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, PbaError) and kind.__module__ == module.__name__
]


def test_all_errors_are_tested() -> None:
    assert {type(error) for error in FULL} | {PbaError} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_can_be_made_of_its_text(kind: Type[PbaError]) -> None:
    """As PyTorch's ``ExceptionWrapper.reraise`` makes it again in the trainer's process."""
    text = "Caught it in DataLoader worker process 0.\nOriginal Traceback (most recent call last): 100 %s {}"
    assert getattr(kind, "message", None) is None, "torch would call it with message="
    try:
        error = kind(text)
    except TypeError:
        error = RuntimeError(text)
    assert type(error) is kind and str(error) == text
    assert set(vars(error).values()) <= {None}
    complete = next((full for full in FULL if type(full) is kind), error)
    assert vars(error).keys() == vars(complete).keys()
    # What the client asks of its errors has an answer.
    assert not _errors.is_busy(error) and not _errors.is_of_replica(error)
    assert _errors.told([("http://h:80", error)])


def same(one: PbaError, other: BaseException) -> bool:
    return (type(one), str(one), vars(one)) == (type(other), str(other), vars(other))


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_an_error_is_pickled_with_all_it_says(error: PbaError) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert same(error, pickle.loads(pickle.dumps(error, protocol)))


def fail(number: int) -> None:
    raise FULL[number]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # is multi-threaded: by other tests
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_error_of_another_process_is_what_it_was(method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        for number, error in enumerate(FULL):
            with pytest.raises(PbaError) as failure:
                pool.apply(fail, (number,))
            assert same(error, failure.value)
        pool.close()
        pool.join()


def test_a_changed_recipe_is_explained() -> None:
    assert str(FULL[2]).startswith("http://h:80 sends other data: its pba.recipe is 'x', and should be 'y': something ")
