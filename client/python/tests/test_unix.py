"""The path that does not leave the machine: a Unix socket."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Server

from pba_client import Client, UnreachableError, _ipc, _shared_memory
from pba_client._batch import decoded


def test_a_unix_socket_gives_the_same_bytes(tmp_path):
    path = tmp_path / "pba.sock"
    server = Server(tmp_path / "data", "--socket", str(path))
    try:
        epochs = []
        for url in (server.url, f"unix:{path}"):
            with Client(url).epoch("shapes", 199, schedule="cifar10-pba", split="test") as epoch:
                epochs.append([(batch.index.copy(), batch.image.copy()) for batch in epoch])
        for (index, image), (other_index, other_image) in zip(*epochs):
            assert np.array_equal(index, other_index) and np.array_equal(image, other_image)
        assert len(epochs[0]) == len(epochs[1]) == 16
    finally:
        server.stop()
    assert not path.exists(), "the socket goes with its server"


def test_a_socket_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnreachableError, match=r"unix:.*nobody\.sock"):
        Client(f"unix:{tmp_path}/nobody.sock").datasets()
    with pytest.raises(ValueError, match="unix:PATH"):
        Client("unix:")


def test_batches_with_the_same_head_are_decoded_once(tmp_path, monkeypatch):
    """Decoding and validating a small batch takes longer than sending it."""
    calls = []

    def counted(message, schema):
        calls.append(message)
        return decoded(message, schema)

    for module in (_ipc, _shared_memory):
        monkeypatch.setattr(module, "decoded", counted)
    path = tmp_path / "pba.sock"
    server = Server(tmp_path / "data", "--socket", str(path))
    try:
        images = []
        for url in (server.url, f"unix:{path}"):
            calls.clear()
            with Client(url).epoch("shapes", 0, split="test", batch_size=300) as epoch:
                assert epoch.shares_memory == url.startswith("unix:")
                images.append([batch.image.copy() for batch in epoch])
            # The last of seven batches is shorter, and has another head.
            assert (len(images[-1]), len(calls)) == (7, 2), url
    finally:
        server.stop()
    for image, other in zip(*images):
        assert np.array_equal(image, other)
