"""Over the server's own TLS."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Iterator, List

import numpy as np
import pyarrow as pa
import pytest
from certificates import Authority
from conftest import Server, binary, wait_for
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat

from pba_client import Client, Loader, UnreachableError

HERE = ["127.0.0.1", "localhost"]
REQUEST = {"split": "test", "shard": (0, 50), "batch_size": 7, "schedule": "cifar10-pba"}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PBA_TOKEN", raising=False)
    monkeypatch.delenv("PBA_CA", raising=False)


@pytest.fixture(scope="module")
def ca(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(authority.pem)
    return path


@pytest.fixture
def certificate(authority: Authority, tmp_path: Path) -> List[str]:
    """Flags of a server that is here, whose files lie in the test's folder."""
    write(authority, tmp_path, HERE)
    return ["--tls-cert", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key")]


def write(authority: Authority, folder: Path, hosts: List[str], *, expired: bool = False) -> str:
    """Writes a certificate and its key, and returns the first."""
    cert, key = authority.pair(hosts, expired=expired)
    (folder / "tls.crt").write_bytes(cert)
    (folder / "tls.key").write_bytes(key)
    return cert.decode()


@pytest.fixture
def secure(server: Server, data_dir: Path, certificate: List[str], ca: Path) -> Iterator[Server]:
    """A replica of the server that speaks TLS."""
    secure = Server(data_dir / "server", *certificate, ca=ca)
    yield secure
    secure.kill()


@pytest.fixture
def whole(server: Server) -> pa.Table:
    return Client(server.url).epoch("shapes", 9, **REQUEST).read_all()


def test_an_epoch_over_tls_is_the_same(secure: Server, ca: Path, whole: pa.Table) -> None:
    for url in (secure.url, f"https://localhost:{secure.address[1]}"):
        for prefetch in (None, 0, 2):
            client = Client(url, ca=ca, prefetch=prefetch)
            assert client.epoch("shapes", 9, **REQUEST).read_all().equals(whole)
            assert client.datasets()[0]["name"] == "shapes"
    loader = Loader(secure.url, "shapes", "cifar10-pba", 200, split="test", ca=ca)
    assert sum(len(batch.image) for batch in loader.epoch(3)) == 2000


def test_a_server_that_is_killed_is_noticed(
    secure: Server, data_dir: Path, certificate: List[str], ca: Path, server: Server
) -> None:
    expected = list(Client(server.url).epoch("shapes", 9, batch_size=100))
    other = Server(data_dir / "server", *certificate, ca=ca)
    try:
        epoch = Client([other.url, secure.url], ca=ca, prefetch=0).epoch("shapes", 9, batch_size=100)
        batches = [next(epoch) for _ in range(3)]
        other.kill()
        batches += epoch
    finally:
        other.kill()
    assert len(batches) == len(expected)
    for batch, right in zip(batches, expected):
        assert np.array_equal(batch.index, right.index) and np.array_equal(batch.image, right.image)
    assert epoch.resumes == 1


def untrusted(secure: Server, ca: Path, says: str) -> None:
    client = Client(secure.url, ca=ca)
    for call in (client.datasets, lambda: client.epoch("shapes", 0)):
        with pytest.raises(UnreachableError, match=f"cannot trust https://127.0.0.1:.*{says}"):
            call()


def test_who_is_not_trusted_is_told_why(secure: Server, authority: Authority, ca: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(Authority("another").pem)
    untrusted(secure, tmp_path / "other.pem", "; pass ca=, ")
    # Replaced while the server runs: by one for another host, and by one that has expired.
    for hosts, expired, says in ((["pictures.example"], False, "not valid for"), (HERE, True, "expired")):
        cert = write(authority, tmp_path, hosts, expired=expired)
        wait_for(lambda cert=cert: ssl.get_server_certificate(secure.address) == cert, "it is not replaced")  # type: ignore[misc]
        untrusted(secure, ca, says)
    write(authority, tmp_path, HERE)
    wait_for(lambda: trusts(secure, ca), "one that is right is not trusted")


def trusts(secure: Server, ca: Path) -> bool:
    try:
        return bool(Client(secure.url, ca=ca).datasets())
    except UnreachableError:
        return False


def test_plain_http_is_told_what_to_ask(secure: Server) -> None:
    url = secure.url.replace("https:", "http:")
    with pytest.raises(Exception, match=f"this port speaks TLS.*https://127.0.0.1:{secure.address[1]}/v1/"):
        Client(url).datasets()
    with pytest.raises(Exception, match="this port speaks TLS"):
        Client(url).epoch("shapes", 0)


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL),
        (ec.generate_private_key(ec.SECP384R1()), PrivateFormat.PKCS8),
        (rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL),
        (rsa.generate_private_key(65537, 2048), PrivateFormat.PKCS8),
        (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
    ],
    ids=["SEC1", "P-384", "PKCS#1", "RSA", "Ed25519"],
)
def test_keys_of_all_kinds_are_read(authority: Authority, key: object, form: PrivateFormat, tmp_path: Path) -> None:
    cert, key_pem = authority.pair(HERE, key=key, form=form)
    (tmp_path / "tls.crt").write_bytes(cert)
    (tmp_path / "tls.key").write_bytes(key_pem)

    def check() -> "subprocess.CompletedProcess[str]":
        flags = ["--tls-cert", "tls.crt", "--tls-key", "tls.key"]
        command = [str(binary()), "serve", "--check", *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    checked = check()
    assert (checked.returncode, checked.stderr) == (0, "")
    # The key of another certificate is none.
    (tmp_path / "tls.crt").write_bytes(authority.pair(HERE)[0])
    checked = check()
    assert checked.returncode == 1 and "does not belong" in checked.stderr
