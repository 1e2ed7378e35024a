"""Servers that let in who has a token."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterator, Tuple

import pytest
from conftest import Server, binary

from pba_client import Client, PbaError


def new_token(role: str) -> Tuple[str, str]:
    """A token and its table."""
    printed = subprocess.run(
        [str(binary()), "token", "new", "--role", role, "--name", role, "--json"], check=True, capture_output=True
    )
    new = json.loads(printed.stdout)
    table = f'[[tokens]]\nname = "{role}"\nrole = "{role}"\nsha256 = "{new["sha256"]}"\n'
    return new["token"], table


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[Server, Dict[str, str], Path]]:
    folder = tmp_path_factory.mktemp("tokens")
    tokens = {role: new_token(role) for role in ("reader", "researcher")}
    file = folder / "tokens.toml"
    file.write_text("".join(table for _, table in tokens.values()))
    server = Server(folder / "data", "--tokens-file", str(file))
    yield server, {role: token for role, (token, _) in tokens.items()}, file
    server.stop()


def rows(client: Client) -> int:
    return sum(batch.record_batch.num_rows for batch in client.epoch("shapes", 0, split="test"))


def test_a_token_is_needed(guarded) -> None:
    server, tokens, _ = guarded
    assert rows(Client(server.url, token=tokens["reader"])) == 2000
    for wrong in (None, "pba_" + "0" * 64):
        begun = time.monotonic()
        with pytest.raises(PbaError, match="401") as failure:
            rows(Client(server.url, token=wrong))
        assert "0" * 64 not in str(failure.value)
        # It is not taken for an outage, which would be waited for.
        assert time.monotonic() - begun < 60


def test_the_token_of_the_environment_is_sent(guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    server, tokens, _ = guarded
    monkeypatch.setenv("PBA_TOKEN", tokens["reader"])
    assert rows(Client(server.url)) == 2000


def test_a_stream_outlives_its_token(guarded) -> None:
    server, tokens, file = guarded
    client = Client(server.url, token=tokens["researcher"])
    epoch = iter(client.epoch("shapes", 0, split="test", batch_size=10))
    read = next(epoch).record_batch.num_rows
    tables = file.read_text().split("[[tokens]]")
    file.write_text("".join("[[tokens]]" + table for table in tables if '"reader"' in table))
    end = time.monotonic() + 60
    while True:
        assert time.monotonic() < end, "the token is still let in"
        try:
            rows(Client(server.url, token=tokens["researcher"]))
        except PbaError as error:
            assert "401" in str(error)
            break
        time.sleep(0.1)
    assert read + sum(batch.record_batch.num_rows for batch in epoch) == 2000
