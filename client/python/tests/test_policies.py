"""Policies by name, as any schedule."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Server

from pba_client import Client, Loader, RefusedError

NAMES = [
    "autoaugment-cifar10",
    "autoaugment-svhn",
    "autoaugment-imagenet",
    "randaugment:2:9",
    "randaugment:5:0",
    "trivial-augment-wide",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_streams_as_a_schedule_does(server: Server, name: str) -> None:
    client = Client(server.url)
    document = client.schedule(name)
    assert (document["name"], document["format"], document["epochs"]) == (name, "pba-schedule/2", 1)
    # Any epoch is valid, whether or not the run is said to have so many.
    loader = Loader(server.url, dataset="shapes", schedule=name, split="test", seed=3)
    one = np.concatenate([batch.image for batch in loader.epoch(700)])
    with client.epoch("shapes", 700, schedule=name, split="test", seed=3, epochs=1000, batch_size=99) as epoch:
        other = np.concatenate([batch.image for batch in epoch])
    assert one.shape == (2000, 32, 32, 3)
    assert np.array_equal(one, other)
    with client.epoch("shapes", 700, schedule="none", split="test", seed=3) as epoch:
        assert not np.array_equal(one, np.concatenate([batch.image for batch in epoch]))


def test_a_wrong_policy_is_refused_by_name(server: Server) -> None:
    with pytest.raises(RefusedError, match="randaugment:N:M with N in 1..=8 and M in 0..=30"):
        Client(server.url).epoch("shapes", 0, schedule="randaugment:2:31").__enter__()
