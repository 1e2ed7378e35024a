"""Over TLS, from servers that ask for a token: a proxy that does both stands before the real server."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pyarrow as pa
import pytest
from certificates import Authority
from conftest import CuttingProxy, Server, close_ends_a_wait

from pba_client import Client, CutError, Loader, PbaError, RefusedError, StreamError, UnreachableError

TOKEN = "a-secret.of/ours+1~="
# 40 images in 6 batches.
REQUEST = {"split": "test", "shard": (0, 50), "batch_size": 7, "schedule": "cifar10-pba"}
HERE = ["127.0.0.1", "localhost"]


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PBA_TOKEN", raising=False)
    monkeypatch.delenv("PBA_CA", raising=False)


@pytest.fixture(scope="session")
def ca(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(authority.pem)
    return path


@pytest.fixture
def secure(server: Server, authority: Authority) -> Iterator[CuttingProxy]:
    """A server that speaks TLS and wants a token."""
    with CuttingProxy(server.address, [], tls=authority.server(HERE), token=TOKEN) as proxy:
        yield proxy


@pytest.fixture
def whole(server: Server) -> pa.Table:
    return Client(server.url).epoch("shapes", 9, **REQUEST).read_all()


def connections(proxy: CuttingProxy) -> int:
    """How many connections there were so far."""
    return len(proxy._threads) - 1


def test_an_epoch_over_tls_is_the_same(secure: CuttingProxy, ca: Path, whole: pa.Table) -> None:
    for prefetch in (None, 0, 2):
        client = Client(secure.url, token=TOKEN, ca=str(ca), prefetch=prefetch)
        assert client.epoch("shapes", 9, **REQUEST).read_all().equals(whole)
        assert client.datasets()[0]["name"] == "shapes"
    loader = Loader(secure.url, "shapes", "cifar10-pba", 200, split="test", token=TOKEN, ca=ca)
    assert sum(len(batch.image) for batch in loader.epoch(3)) == 2000


def test_names_are_checked_too(secure: CuttingProxy, ca: Path) -> None:
    client = Client(f"https://localhost:{secure.port}", token=TOKEN, ca=ca)
    assert client.datasets()[0]["name"] == "shapes"


def test_token_and_authority_may_stand_in_the_environment(
    secure: CuttingProxy, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBA_TOKEN", TOKEN)
    monkeypatch.setenv("PBA_CA", str(ca))
    assert Client(secure.url).datasets()[0]["name"] == "shapes"
    # What is said wins.
    with pytest.raises(RefusedError):
        Client(secure.url, token="another").datasets()
    # An empty variable is none.
    monkeypatch.setenv("PBA_TOKEN", "")
    with pytest.raises(RefusedError, match="PBA_TOKEN"):
        Client(secure.url).datasets()


@pytest.mark.parametrize("how", [{}, {"reset": True}, {"hang": True}])
def test_a_cut_over_tls_is_seen_and_continued(
    server: Server, authority: Authority, ca: Path, whole: pa.Table, how: dict
) -> None:
    tls = authority.server(HERE)
    # In the handshake's end, in the head, in the schema, in batches, before the end.
    for cuts in ([0], [30], [1000], [30_000], [90_000, 20_000], [60_000, 0, 20, 30_000]):
        with CuttingProxy(server.address, cuts, tls=tls, token=TOKEN, **how) as proxy:
            stall_seconds = 0.5 if how.get("hang") else 120
            client = Client(proxy.url, token=TOKEN, ca=ca, stall_seconds=stall_seconds)
            epoch = client.epoch("shapes", 9, **REQUEST)
            assert epoch.read_all().equals(whole), cuts
            assert len(proxy.requests) == 1 + len(cuts)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_close_ends_a_wait_over_tls(server: Server, authority: Authority, ca: Path, prefetch: int) -> None:
    with CuttingProxy(server.address, [60_000], tls=authority.server(HERE), hang=True) as proxy:
        close_ends_a_wait(Client(proxy.url, ca=ca, prefetch=prefetch).epoch("shapes", 9, **REQUEST))


@pytest.mark.parametrize(
    ("token", "says"), [(None, "; pass token="), ("wrong-and-secret", "the one passed as token=")]
)
def test_who_shows_no_token_is_refused(secure: CuttingProxy, ca: Path, token: Optional[str], says: str) -> None:
    client = Client(secure.url, token=token, ca=ca)
    for call in (client.datasets, lambda: client.epoch("shapes", 0)):
        with pytest.raises(RefusedError, match="no token that I know") as refusal:
            call()
        assert refusal.value.status == 401
        assert says in str(refusal.value) and "PBA_TOKEN" in str(refusal.value)
        assert token is None or token not in str(refusal.value)


def untrusted(proxy: CuttingProxy, ca: Any, says: str) -> None:
    """It is said at once, and to every call, that the server's certificate is not trusted."""
    client = Client(proxy.url, token=TOKEN, ca=ca)
    for number, call in enumerate([client.datasets, lambda: client.epoch("shapes", 0)], 1):
        with pytest.raises(UnreachableError, match="cannot trust https://127.0.0.1:.*certificate") as failure:
            call()
        assert says in str(failure.value)
        assert connections(proxy) == number, "another attempt would not help"
    assert proxy.requests == [], "the token is shown to no server that is not trusted"


def test_an_unknown_authority_is_not_trusted(secure: CuttingProxy) -> None:
    untrusted(secure, None, "; pass ca=, ")


def test_another_authority_is_not_trusted(secure: CuttingProxy, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(Authority("another").pem)
    untrusted(secure, tmp_path / "other.pem", "; pass ca=, ")


def test_a_certificate_for_another_host_is_not_trusted(server: Server, authority: Authority, ca: Path) -> None:
    with CuttingProxy(server.address, [], tls=authority.server(["pictures.example"])) as proxy:
        untrusted(proxy, ca, "not valid for '127.0.0.1'")


def test_a_certificate_that_changes_ends_a_stream(server: Server, authority: Authority, ca: Path) -> None:
    with CuttingProxy(server.address, [60_000], tls=authority.server(HERE)) as proxy:
        epoch = Client(proxy.url, ca=ca, prefetch=0).epoch("shapes", 9, **REQUEST)
        next(epoch)
        proxy._tls = Authority("another").server(HERE)
        with pytest.raises(CutError, match="1 attempt to continue it within .* s failed: cannot trust") as cut:
            list(epoch)
        assert cut.value.received >= 1
        assert connections(proxy) == 2, "another attempt would not help"


def test_a_replica_that_is_not_trusted_is_passed_over(
    server: Server, secure: CuttingProxy, ca: Path, whole: pa.Table
) -> None:
    with CuttingProxy(server.address, [], tls=Authority("another").server(HERE)) as other:
        client = Client([other.url, secure.url], token=TOKEN, ca=ca)
        assert client.epoch("shapes", 9, **REQUEST).read_all().equals(whole)
        assert client.datasets()[0]["name"] == "shapes"


def test_a_wrong_file_of_an_authority_is_said_when_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ca is '.*nobody.pem': no such file or directory; expected a PEM file"):
        Client("https://host", ca=tmp_path / "nobody.pem")
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(ValueError, match="ca is '.*text.pem': it is not in PEM"):
        Loader("https://host", "shapes", ca=str(tmp_path / "text.pem"))


def test_the_wrong_scheme_is_said(server: Server, authority: Authority) -> None:
    with pytest.raises(UnreachableError, match="cannot speak TLS with https://.*http://"):
        Client(server.url.replace("http:", "https:")).epoch("shapes", 0)
    with CuttingProxy(server.address, [], tls=authority.server(HERE)) as proxy:
        with pytest.raises((StreamError, UnreachableError)):
            Client(proxy.url.replace("https:", "http:"), retry_seconds=0).epoch("shapes", 0)


@pytest.mark.parametrize("token", ["", "se cret", "secret\n", "secret\r\nX: y", "s\u00e9cret", "secret\x7f"])
def test_a_token_that_fits_no_header_is_refused_unseen(token: str) -> None:
    with pytest.raises(ValueError, match="token") as refusal:
        Client("https://host", token=token)
    assert "cret" not in str(refusal.value)


def test_a_token_is_shown_to_servers_only(secure: CuttingProxy, ca: Path) -> None:
    loader = Loader(secure.url, "shapes", batch_size=1000, token=TOKEN, ca=ca)
    with loader.epoch(0) as epoch:
        batch = next(epoch)
        for thing in (loader, loader.client, epoch, batch, loader.client._access):
            assert TOKEN not in repr(thing)
        assert TOKEN not in json.dumps([loader.state_dict(), epoch.state_dict(), loader.client.urls])
    errors: List[Exception] = []
    for call in (lambda: loader.client.epoch("shapes", 0, batch_size=0), lambda: loader.client.dataset(TOKEN)):
        with pytest.raises(PbaError) as failure:
            call()
        errors.append(failure.value)
    # The second server repeats what it was shown, as the name that was asked for.
    for error in errors:
        assert TOKEN not in str(error) and TOKEN not in repr(vars(error))


def test_a_loader_travels_with_what_it_needs(secure: CuttingProxy, ca: Path) -> None:
    """As to a worker that is spawned."""
    loader = Loader(secure.url, "shapes", batch_size=1000, token=TOKEN, ca=ca)
    copy = pickle.loads(pickle.dumps(loader))
    assert [len(batch) for batch in copy.epoch(0)] == [1000] * 10
