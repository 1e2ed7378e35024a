"""Replicas that differ, lack something or are away."""

from __future__ import annotations

import json

import pytest
from conftest import Server
from script import PROBLEM, Script, answer, full, refusal, stream

from pba_client import ChangedError, Client, CutError, Loader, RefusedError, StreamError, UnreachableError


def test_a_busy_server_is_waited_for_beside_one_that_is_away(server: Server) -> None:
    body = answer(b'{"datasets": []}', kind="application/json")
    for turn in (1, -1):
        with Script(full(), body) as script:
            assert Client([script.url, "http://127.0.0.1:1"][::turn]).datasets() == []


def test_nobody_goes_on_with_another_recipe() -> None:
    begun, rest = stream(3, 3), stream(2, 2, recipe="another", first=1)
    at = [place for place in range(len(begun)) if begun.startswith(b"\xff\xff\xff\xff", place)]
    cut = len(begun) - at[2] - 10
    with Script(answer(begun)[:-cut], answer(rest)) as script:
        epoch = Client(script.url).epoch("d", 0)
        with pytest.raises(ChangedError, match=r"pba\.recipe is 'another', and should be 'r': something else"):
            list(epoch)


def test_the_next_epoch_is_by_the_same_recipe() -> None:
    with Script(answer(stream(2, 2)), answer(stream(2, 2, recipe="another", epoch="1"))) as script:
        client = Client(script.url)
        assert len(list(client.epoch("d", 0))) == 2
        with pytest.raises(ChangedError, match=r"pba\.recipe is 'another', and should be 'r'"):
            client.epoch("d", 1)
    # Another request may have another recipe.
    with Script(answer(stream(2, 2)), answer(stream(2, 2, recipe="another"))) as script:
        client = Client(script.url)
        assert len(list(client.epoch("d", 0))) == 2
        assert len(list(client.epoch("d", 0, split="test"))) == 2


def test_a_replica_whose_file_is_damaged_is_passed_over() -> None:
    """It mends its own, or another one's is whole; all other refusals of a dataset are final."""
    problem = {"title": "t", "status": 422, "detail": "damaged: train.arrow", "type": "urn:pba:problem:damaged"}
    damaged = answer(json.dumps(problem).encode(), "422 Unprocessable Entity", PROBLEM, "Retry-After: 0\r\n")
    with Script(damaged, answer(stream(2, 2))) as script:
        assert len(list(Client(script.url).epoch("d", 0))) == 2
    with Script(damaged) as script, pytest.raises(RefusedError, match="damaged: train.arrow"):
        Client(script.url, retry_seconds=0).epoch("d", 0)
    broken = json.dumps({**problem, "type": "urn:pba:problem:broken-dataset"}).encode()
    with Script(answer(broken, "422 Unprocessable Entity", PROBLEM)) as script, pytest.raises(RefusedError):
        Client(script.url).epoch("d", 0)


def test_a_replica_that_has_not_what_others_have_is_passed_over() -> None:
    """At the beginning, after a cut, and for what is no stream."""
    begun, rest = stream(4, 4), stream(3, 3, first=1)
    at = [place for place in range(len(begun)) if begun.startswith(b"\xff\xff\xff\xff", place)]
    cut = answer(begun)[: len(answer(begun)) - len(begun) + at[2] + 10]
    for status in (404, 422, 507, 500):
        with Script(refusal(status, "not here"), refusal(status, "not here")) as without:
            with Script(cut, answer(rest)) as script:
                epoch = Client([without.url, script.url]).epoch("d", 0)
                assert [batch.index[0] for batch in epoch] == [0, 1, 2, 3]
            described = answer(b'{"name": "d"}', kind="application/json")
        with Script(refusal(status, "not here")) as without, Script(described) as script:
            assert Client([without.url, script.url]).dataset("d") == {"name": "d"}


def test_what_no_replica_has_is_refused_by_name() -> None:
    for ask in (lambda client: client.epoch("d", 0), lambda client: client.dataset("d")):
        with Script(refusal(404, "no dataset")) as one, Script(refusal(422, "it is broken")) as other:
            with pytest.raises(RefusedError) as refused:
                ask(Client([one.url, other.url]))
        assert refused.value.status == 404
        assert refused.value.detail == f"{one.url}: no dataset; {other.url}: it is broken"
    # That the request is wrong, all would say.
    with Script(refusal(400, "no such batch size")) as one, Script() as other:
        with pytest.raises(RefusedError, match="^no such batch size"):
            Client([one.url, other.url]).epoch("d", 0)
        assert other.requests == []


def test_a_loader_whose_first_replica_has_a_broken_dataset(server: Server) -> None:
    """Its description has no samples; those of the others count, and it is no error."""
    failed = answer(b'{"name": "shapes", "state": "failed", "splits": {}}', kind="application/json")
    broken = refusal(422, "dataset 'shapes' could not be read")
    with Script(failed, *[broken] * 8) as script:
        loader = Loader([script.url, server.url], "shapes", split="test", batch_size=500)
        assert len(loader) == 4
        assert len(list(loader.epoch(0))) == 4


def test_a_loader_is_as_patient_as_an_epoch(server: Server) -> None:
    """A server whose first answers are cut."""
    with Script(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") as script:
        described = Client(server.url)._get("/v1/datasets/shapes")
        script._answers.append(answer(json.dumps(described).encode(), kind="application/json"))
        with pytest.raises((RefusedError, StreamError, UnreachableError, CutError)):
            Loader(script.url, "shapes", split="test", retry_seconds=2, stall_seconds=1)
        assert len(script.requests) >= 3
