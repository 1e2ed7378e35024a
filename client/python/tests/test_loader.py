"""A training run: ranks, epochs, checkpoints."""

from __future__ import annotations

import json
import urllib.request
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CuttingProxy, Server

from pba_client import (
    ChangedError,
    Client,
    Loader,
    PbaError,
    RefusedError,
    UnreachableError,
    _epoch,
    _source,
)

SMALL = {"batch_size": 100, "split": "test", "shuffle": True}


def train(server: Server, **options) -> Loader:  # type: ignore[no-untyped-def]
    return Loader(server.url, "shapes", "cifar10-pba", 200, **{**SMALL, **options})


def rows(epoch) -> list:  # type: ignore[no-untyped-def]
    return [(batch.index.tolist(), batch.image.tobytes()) for batch in epoch]


def test_a_run_in_one_line(server: Server) -> None:
    loader = Loader(server.url, dataset="shapes", schedule="cifar10-pba", epochs=200, batch_size=128)
    for epoch in (0, 199):
        seen = [batch.index for batch in loader.epoch(epoch)]
        assert len(seen) == len(loader) == 79
        assert sorted(np.concatenate(seen).tolist()) == list(range(10_000))
    assert loader.mean.shape == loader.std.shape == (3,) and loader.mean.dtype == np.float32
    assert 0 < loader.std.min() and loader.mean.max() < 1
    assert len(loader.classes) == 10 and loader.classes[0] == "disc"


def test_calling_it_is_an_epoch(server: Server) -> None:
    loader = train(server)
    assert rows(loader(5)) == rows(loader.epoch(5))
    assert rows(loader(5)) != rows(loader(6))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_an_epoch(server: Server, world_size: int, drop_last: bool) -> None:
    seen, lengths = [], set()
    for rank in range(world_size):
        loader = train(server, rank=rank, world_size=world_size, batch_size=64, drop_last=drop_last)
        with loader.epoch(1) as epoch:
            assert len(loader) == len(epoch)
            lengths.add(len(epoch))
            seen += [int(index) for batch in epoch for index in batch.index]
    assert len(seen) == len(set(seen))
    if drop_last:
        assert len(lengths) == 1 and len(seen) == world_size * lengths.pop() * 64
    else:
        assert sorted(seen) == list(range(2000))


def test_more_ranks_than_samples(server: Server) -> None:
    loader = train(server, rank=2500, world_size=3000)
    assert len(loader) == 0 and rows(loader(0)) == []


@pytest.mark.parametrize("stop", [0, 1, 7, 19, 20])
def test_a_checkpoint_continues_the_epoch(server: Server, stop: int) -> None:
    loader = train(server, seed=3)
    expected = rows(loader(4))
    epoch = loader.epoch(4)
    first = [next(epoch) for _ in range(stop)]
    state = json.loads(json.dumps(loader.state_dict()))
    epoch.close()
    assert (state["epoch"], state["samples"]) == (4, stop * 100)

    # Another process.
    loader = train(server, seed=3)
    loader.load_state_dict(state)
    assert loader.state_dict() == state
    assert rows(first) + rows(loader(4)) == expected
    assert loader.state_dict()["samples"] == 2000
    # Only the first epoch after it begins in the middle.
    assert len(rows(loader(5))) == 20 and len(rows(loader(4))) == 20


def test_a_position_is_not_lost(server: Server) -> None:
    loader = train(server)
    expected = rows(loader(4))
    state = {**loader.state_dict(), "epoch": 4, "samples": 700}
    loader.load_state_dict(state)
    for epoch in (3, 5):
        with pytest.raises(ValueError, match=f"position in epoch 4 was loaded, and would be lost in epoch {epoch}"):
            loader.epoch(epoch)
    assert loader.state_dict() == state
    assert rows(loader(4)) == expected[7:]
    loader.load_state_dict(state)
    assert len(rows(loader.epoch(3, start=0))) == len(rows(loader(4))) == 20
    with pytest.raises(ValueError, match="the state is after 2001 samples; an epoch has 2000"):
        loader.load_state_dict({**loader.state_dict(), "samples": 2001})


@pytest.mark.parametrize("samples", [0, 1, 600, 1999, 2000])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_position_is_right_for_other_ranks_and_batches(server: Server, samples: int, drop_last: bool) -> None:
    whole = dict(zip(*[[value for batch in train(server)(4) for value in get(batch)] for get in (
        lambda batch: batch.index.tolist(), lambda batch: map(np.ndarray.tobytes, batch.image)
    )]))
    state = {**train(server, drop_last=drop_last).state_dict(), "epoch": 4, "samples": samples}
    loaders = [train(server, rank=rank, world_size=3, batch_size=64, drop_last=drop_last) for rank in range(3)]
    seen = {}
    for loader in loaders:
        loader.load_state_dict(state)
        batches = [(batch.index.tolist(), batch.image) for batch in loader(4)]
        assert len(batches) == loader._batches_after(samples)
        seen.update({index: image.tobytes() for indices, images in batches for index, image in zip(indices, images)})
    expected = list(whole)[samples:]
    expected = expected[: len(expected) // 192 * 192] if drop_last else expected
    assert seen == {index: whole[index] for index in expected}


def test_a_run_written_as_a_trainer_does(server: Server) -> None:
    """Two epochs, killed after any batch, are the same batches as without."""
    expected = rows(train(server)(0)) + rows(train(server)(1))
    for kill_after in (5, 20, 33):
        seen, state = [], None
        for last in (False, True):
            loader = train(server)
            if state is not None:
                loader.load_state_dict(state)
            for number in range(state["epoch"] if state else 0, 2):
                for batch in loader.epoch(number):
                    seen += rows([batch])
                    state = loader.state_dict()
                    if not last and len(seen) == kill_after:
                        break
                else:
                    continue
                break
        assert seen == expected, kill_after


def test_a_checkpoint_of_another_run_is_refused(server: Server) -> None:
    state = train(server).state_dict()
    for options, says in [
        ({"seed": 1}, "seed was '0' and is '1'"),
        ({"drop_last": True}, "drop_last was 'false' and is 'true'"),
        ({"policy": None, "ablation": "final"}, "ablation"),
    ]:
        with pytest.raises(ValueError, match=says):
            train(server, **options).load_state_dict(state)
    with pytest.raises(ChangedError, match="pba.dataset"):
        train(server).load_state_dict({**state, "dataset_digest": "other"})
    with pytest.raises(ValueError, match="version 9"):
        train(server).load_state_dict({**state, "version": 9})


def test_nobody_goes_on_with_another_configuration(start_server, tmp_path: Path) -> None:
    """The same pictures with another base augmentation: in a cut epoch, the next one, and from a state."""
    first = start_server()
    packed = next(path for path in (tmp_path / "server-0").rglob("train.arrow")).parent
    servers = []
    for crop in (4, 2):
        config = tmp_path / f"{crop}.toml"
        config.write_text(f'[datasets.mine]\npath = "{packed}"\nbase = "pad_crop:{crop},flip"\n')
        servers.append(start_server("--config", str(config)))
    loader = Loader(servers[0].url, "mine")
    state = loader.state_dict()
    assert loader.epoch(0).metadata.recipe == loader.epoch(1).metadata.recipe == state["recipe_digest"]
    with pytest.raises(ChangedError, match="pba.recipe"):
        Loader(servers[1].url, "mine").load_state_dict(state)
    first.kill()

    with CuttingProxy(servers[0].address, [2_000_000]) as proxy:
        with pytest.raises(ChangedError, match="pba.recipe"):
            list(Client([proxy.url, servers[1].url]).epoch("mine", 3))
    # Ranks begin at different replicas.
    for rank in (0, 1):
        with pytest.raises(ChangedError, match="pba.recipe"):
            Loader([servers[0].url, servers[1].url], "mine", rank=rank, world_size=2)
    with CuttingProxy(servers[0].address, []) as proxy:
        loader = Loader([servers[0].url, proxy.url], "mine")
        proxy.target = servers[1].address
        servers[0].kill()
        with pytest.raises(ChangedError, match="pba.recipe"):
            loader.epoch(1)


def test_replicas_are_compared_before_the_first_epoch(start_server) -> None:
    servers = [start_server(), start_server()]
    urls = [server.url for server in servers]
    loaders = [Loader(urls, "shapes", "cifar10-pba", 200, rank=rank, world_size=2) for rank in (0, 1)]
    assert loaders[0].state_dict()["recipe_digest"] == loaders[1].state_dict()["recipe_digest"]
    # One has what the other has not.
    document = json.dumps({**Client(urls[0]).schedule("cifar10-pba"), "name": "mine"}).encode()
    headers = {"Content-Type": "application/json"}
    put = urllib.request.Request(f"{urls[0]}/v1/schedules/mine", document, headers, method="PUT")
    urllib.request.urlopen(put).close()
    with pytest.raises(RefusedError, match="mine"):
        Loader(urls, "shapes", "mine", 200)
    # One that is not there is no fault.
    servers[1].kill()
    assert len(Loader(urls, "shapes", "mine", 200).epoch(0)) == 79


def test_an_epoch_has_a_position_too(server: Server) -> None:
    loader = train(server)
    expected = rows(loader(2))
    epoch = loader.epoch(2)
    first = rows([next(epoch), next(epoch)])
    state = json.loads(json.dumps(epoch.state_dict()))
    assert first + rows(epoch) == expected
    epoch.load_state_dict(state)  # backwards
    assert rows(epoch) == expected[2:]
    other = loader.epoch(2)
    other.load_state_dict(state)
    assert rows(other) == expected[2:] and len(other) == 20
    for wrong in ({"batch": 21}, {"batch": -1}, {"request": {**state["request"], "epoch": 3}}):
        with pytest.raises(ValueError, match="not one of|an integer of 0 to|epoch was 3"):
            epoch.load_state_dict({**state, **wrong})


def test_a_stripe_is_no_position(server: Server) -> None:
    loader = train(server)
    with loader.epoch(0, start=1, step=2) as epoch:
        assert [batch.number for batch in epoch] == list(range(1, 20, 2))
        with pytest.raises(PbaError, match="step"):
            loader.state_dict()


@pytest.mark.parametrize("batch_size", [64, 65536, np.int64(64)])
def test_being_made_costs_nothing(server: Server, batch_size: int) -> None:
    server.wait_idle()
    metrics = ("pba_batches_sent_total", "pba_resumes_total")
    before = [server.metric(name) for name in metrics]
    loader = train(server, batch_size=batch_size)
    server.wait_idle()
    assert [server.metric(name) for name in metrics] == before
    with loader.epoch(0) as epoch:
        assert len(loader) == len(epoch)


def test_integers_of_numpy_are_integers(server: Server) -> None:
    loader = train(server, batch_size=np.int64(300), seed=np.uint8(7), drop_last=np.bool_(False))
    with loader.epoch(np.int64(3), start=np.int32(2), step=np.int16(1)) as epoch:
        expected = [batch.index.tolist() for batch in epoch][1:]
    with loader.epoch(np.int64(3), start=np.int32(2)) as epoch:
        next(epoch)
        state = json.loads(json.dumps(loader.state_dict()))
    small = train(server, batch_size=np.uint8(100), rank=np.uint8(1), world_size=np.uint64(2))
    assert len(small) == len(list(small.epoch(0))) == 10
    again = train(server, batch_size=300, seed=7)
    again.load_state_dict(state)
    assert [batch.index.tolist() for batch in again.epoch(3)] == expected
    # In a state as well, as it may be written by other means.
    again.load_state_dict({**state, "epoch": np.int64(3), "samples": np.uint16(state["samples"])})
    assert json.loads(json.dumps(again.state_dict())) == state
    with again.epoch(3) as epoch:
        saved = epoch.state_dict()
        epoch.load_state_dict({**saved, "batch": np.int64(4)})
        assert json.loads(json.dumps(epoch.state_dict()))["batch"] == next(epoch).number == 4


def test_states_that_are_none(server: Server) -> None:
    loader = train(server)
    state = loader.state_dict()
    wrong = [None, [], {}, {**state, "samples": -1}, {**state, "request": None}, {**state, "samples": True}]
    wrong += [{**state, "samples": 2**63}, {**state, "request": {**state["request"], "parameters": None}}]
    wrong += [{**state, "request": {**state["request"], 7: 8}}]
    wrong += [{key: state[key] for key in state if key != left_out} for left_out in state]
    for state in wrong:
        with pytest.raises(ValueError):
            loader.load_state_dict(state)
        with pytest.raises(ValueError), loader.epoch(0) as epoch:
            epoch.load_state_dict(state)
    with pytest.raises(ValueError, match="the state's batch is None"), loader.epoch(0) as epoch:
        epoch.load_state_dict(loader.state_dict())


def test_what_is_wrong_is_said_when_it_is_made(server: Server) -> None:
    with pytest.raises(RefusedError, match="did you mean"):
        Loader(server.url, "shape")
    with pytest.raises(RefusedError, match="cifar10-pba"):
        Loader(server.url, "shapes", "cifar-10-pba")
    with pytest.raises(RefusedError) as refusal:
        train(server, split="val")
    assert refusal.value.parameter == "split"
    for batch_size in (0, -1, "many", 2**40):
        with pytest.raises(RefusedError) as refusal:
            train(server, batch_size=batch_size)
        assert refusal.value.parameter == "batch_size"
    for headspace in ("false", None):
        with pytest.raises(ValueError, match=f"headspace is {headspace!r}; expected True or False"):
            train(server, headspace=headspace)
    with pytest.raises(TypeError, match="batch_size is '7'; expected an integer"):
        train(server, batch_size="7")
    for rank, world_size in [(2, 2), (-1, 2), ("0", 2), (0, "2"), (0, None)]:
        with pytest.raises(ValueError, match=f"rank is {rank!r} and world_size {world_size!r}; expected"):
            train(server, rank=rank, world_size=world_size)
    for name in ("shufle", "shard", "start", "epoch"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            train(server, **{name: 1})
    with pytest.raises(UnreachableError):
        Loader("http://127.0.0.1:1", "shapes")
    with pytest.raises(RefusedError, match="0..=199") as refusal:
        train(server).epoch(200)
    assert refusal.value.parameter == "epoch"


def test_an_epoch_is_as_long_as_the_loader(server: Server) -> None:
    loader = train(server, seed="007")
    with loader.epoch(3, start=5, step=2) as epoch:
        assert len(epoch) == len(range(5, len(loader), 2)) and epoch.metadata.seed == 7
    loader._samples -= 1000
    with pytest.raises(ChangedError, match="pba.batches"):
        loader.epoch(3)


def test_the_dataset_may_not_change_between_epochs(server: Server) -> None:
    loader = train(server)
    loader._metadata = loader._metadata._replace(dataset="other")
    with pytest.raises(ChangedError, match="and should be 'other'"):
        loader.epoch(0)


def test_a_loader_takes_what_a_client_and_its_epochs_take() -> None:
    """So that neither has an option, a type or a default that the other has not."""
    loader, client, epoch = (signature(taker).parameters for taker in (Loader, Client, Client.epoch))
    decided = {"self", "dataset", "epoch", "shard", "skip", "start", "step"}
    # A loader divides by it, so that the server's default would not do.
    assert loader["batch_size"].annotation == "int"
    expected = {name: given for name, given in epoch.items() if name not in decided | {"batch_size"}}
    expected.update({name: given for name, given in client.items() if name != "urls"})
    own = {"url", "dataset", "batch_size", "rank", "world_size", "headspace"}
    assert set(loader) == set(expected) | own
    for name, given in expected.items():
        found = loader[name]
        assert (found.annotation, found.default) == (given.annotation, given.default), name
    assert loader["url"].annotation == client["urls"].annotation


def test_every_option_reaches_the_server(server: Server) -> None:
    """Options that change what is sent do so; that one is forgotten would change nothing."""
    given = {"shuffle": False, "ablation": "final", "base": "flip", "seed": 5, "policy": [0, 9] * 30}
    for name, value in given.items():
        options = {"schedule": "cifar10-pba" if name == "ablation" else None, "epochs": 200, name: value}
        loader = Loader(server.url, "shapes", split="test", batch_size=2000, **options)
        expected = rows(loader.client.epoch("shapes", 0, split="test", batch_size=2000, **options))
        assert rows(loader(0)) == expected, name
        if name not in ("shuffle", "seed"):
            assert loader._request(0).parameters[name]
    packed = Loader(server.url, "shapes", split="test", batch_size=2000, codec="zstd").epoch(0)
    assert len(list(packed)) == 1 and packed.bytes < 2000 * 32 * 32 * 3


def test_a_dataset_has_to_be_named() -> None:
    for make in (Loader, lambda: Loader("shapes"), lambda: Loader("http://127.0.0.1:1", batch_size=9)):
        with pytest.raises(TypeError, match="dataset= is missing: the name of a dataset of the server, whose URL is"):
            make()


def test_a_loader_finds_its_server_in_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBA_SERVER", f"127.0.0.1:1,{server.url}")
    loader = Loader(dataset="shapes", batch_size=1000)
    assert loader.client.urls[1] == server.url and len(list(loader(0))) == 10


def test_headspace_repeats_the_first_batch(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    plain, loader = train(server), train(server, headspace=True)
    ((level, message),) = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert level == "WARNING" and "each epoch repeats its first batch" in message
    server.wait_idle()
    sent = server.metric("pba_batches_sent_total")
    epochs = [loader.epoch(number) for number in (3, 4)]
    repeated = [list(epoch) for epoch in epochs]
    server.wait_idle()
    assert server.metric("pba_batches_sent_total") == sent + 2
    for epoch, batches in zip(epochs, repeated):
        first = rows([next(plain(epoch.metadata.epoch))])
        assert len(loader) == len(epoch) == epoch.received == epoch.metadata.batches == 20
        assert epoch.metadata.rows == 2000 and epoch.resumes == 0 and list(epoch) == []
        assert rows(batches) == first * 20 and [batch.number for batch in batches] == list(range(20))
        assert len({batch.image.ctypes.data for batch in batches}) == 1, "nothing is copied"
        for act in (loader.state_dict, epoch.state_dict, lambda: epoch.load_state_dict(plain.state_dict())):
            with pytest.raises(PbaError, match="headspace=True"):
                act()
    # As a worker of a DataLoader reads.
    with loader.epoch(3, start=5, step=4) as epoch:
        assert [batch.number for batch in epoch] == [5, 9, 13, 17]
        assert epoch.read_all().num_rows == 0
    with loader.epoch(3, start=20) as epoch:
        assert list(epoch) == []
    with loader.epoch(3) as epoch:
        next(epoch)
    with pytest.raises(ValueError, match="closed after 1 of 20 batches"):
        next(epoch)
    assert len(caplog.records) == 1, "it is said once"


def test_headspace_waits_for_the_first_batch_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on after a cut, as ever."""
    loader = train(server, headspace=True, prefetch=0)
    with CuttingProxy(server.address, [100_000]) as proxy:
        loader.client._access.addresses = Client(proxy.url)._access.addresses
        epoch = loader.epoch(0)
        assert len(list(epoch)) == 20 and epoch.resumes == 1
    now = [0.0]
    monkeypatch.setattr(_epoch, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    original = _source.Direct.next

    def slowly(source: _source.Direct) -> _source.Item:
        now[0] += 3
        return original(source)

    loader.client._access.addresses = Client(server.url)._access.addresses
    monkeypatch.setattr(_source.Direct, "next", slowly)
    epoch = loader.epoch(0)
    for _ in epoch:
        now[0] += 1
    assert epoch.waited_seconds == 3


def test_importing_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; sys.modules['torch'] = None; import pba_client; assert pba_client.Loader"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loader_waits_for_a_dataset_that_is_being_imported(start_server) -> None:
    server = start_server(wait=False)
    assert Client(server.url).dataset("shapes")["state"] == "importing"
    assert len(Loader(server.url, "shapes", batch_size=100)) == 100
