"""Where servers are: their URLs, those of the environment, options, and what is said where nobody is."""

from __future__ import annotations

import socket
from typing import Any, Optional

import numpy as np
import pytest
from conftest import CuttingProxy, Server

from pba_client import Client, Loader, UnreachableError


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost:8080/prefix/", "http://localhost:8080/prefix"),
        ("Pictures.example", "http://pictures.example:80"),
        ("HTTPS://pictures.example", "https://pictures.example:443"),
        ("https://[::1]:8443/a/b", "https://[::1]:8443/a/b"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("http://host/a.sock", "http://host:80/a.sock"),
        ("unix:/run/pba.sock", "unix:/run/pba.sock"),
        ("unix:pba.sock", "unix:pba.sock"),
    ],
)
def test_urls_have_one_form(url: str, canonical: str) -> None:
    assert Client(url).urls == [canonical] == Client(canonical).urls
    assert repr(Client(url)) == f"Client(['{canonical}'])"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host", "ftp:// is not supported"),
        ("", "names no host"),
        ("http://", "names no host"),
        ("http://h:x", "h:x"),
        ("http:127.0.0.1:8080", "http is not followed by ://"),
        ("HTTP//127.0.0.1:8080", "http is not followed by ://"),
        ("http;//127.0.0.1:8080", "http is not followed by ://"),
        ("http://127.0.0.1\\:8080", "it holds a backslash"),
        ("http://127.0.0.1\u200b:8080", "a space or a control character"),
        ("http://[::1]x:8080", "brackets must enclose an IPv6 address, and only a port may follow them"),
        ("http://[::1:8080", "brackets must enclose"),
        ("http://[zz]:8080", "brackets must enclose"),
        ("htp:/host", "no port after the colon"),
        ("19201", "it is a number; is 127.0.0.1:19201 meant?"),
        ("host:", "no port after the colon"),
        ("127.0.0.1:8080?split=test", "more than host"),
        ("unix:", "names no path"),
        ("/run/pba.sock", "a Unix socket is written unix:/run/pba.sock;"),
        ("./pba.sock", "written unix:./pba.sock;"),
        ("pba.sock", "written unix:pba.sock;"),
    ],
)
def test_only_servers_are_urls(url: str, says: str) -> None:
    with pytest.raises(ValueError) as refusal:
        Client(url)
    message = str(refusal.value)
    assert says in message
    assert message.endswith("expected http://HOST:PORT, https://HOST:PORT or unix:PATH")


def test_a_password_in_a_url_is_not_repeated() -> None:
    for url in ("http://somebody:secret@host:80", "http://somebody:4/secret@host"):
        with pytest.raises(ValueError, match="token=") as refusal:
            Client(url)
        assert "secret" not in str(refusal.value)


def test_ipv6_hosts_are_reached(server: Server) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener, CuttingProxy(server.address, [], listener=listener) as proxy:
        assert proxy.url.startswith("http://[::1]:")
        assert len(Client(proxy.url).epoch("shapes", 0, split="test", batch_size=100).read_all()) == 2000


@pytest.mark.parametrize(
    "options",
    [
        {"stall_seconds": 0}, {"retry_seconds": -1}, {"retry_seconds": "9"}, {"retry_seconds": float("nan")},
        {"wait_seconds": -1}, {"wait_seconds": 604801}, {"urls": []}, {"urls": 8080}, {"urls": b"http://h"}, {"urls": ["http://h", None]}, {"stall_seconds": "9"},
        {"prefetch": -1}, {"prefetch": 10**9}, {"prefetch": "2"}, {"shared_memory": "no"}, {"shared_memory": None},
        {"shared_memory": 2}, {"checksums": "no"}, {"checksums": 0.0},
    ],
)  # fmt: skip
def test_options_are_checked(options: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))} is .*; expected|no server is given; expected"):
        Client(options.pop("urls", "http://127.0.0.1:1"), **options)


@pytest.mark.parametrize("value", [True, False, np.bool_(False), 0, 1, np.int64(1)])
def test_switches_are_on_or_off(value: Any) -> None:
    access = Client("http://127.0.0.1:1", shared_memory=value, checksums=value)._access
    assert access.shared_memory is access.checksums is bool(value)


def test_servers_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PBA_SERVER", raising=False)
    assert Client().urls == Client(None).urls == ["http://127.0.0.1:8080"]
    for value, urls in [
        ("", ["http://127.0.0.1:8080"]),
        ("pictures.example:90", ["http://pictures.example:90"]),
        ("http://a:1,", ["http://a:1"]),
        ("http://a:1, https://b/c ,unix:/d.sock", ["http://a:1", "https://b:443/c", "unix:/d.sock"]),
    ]:
        monkeypatch.setenv("PBA_SERVER", value)
        assert Client().urls == urls
        # What is said wins.
        assert Client("http://h").urls == ["http://h:80"]
    wrong = [(value, "names no host") for value in (",", "http://a:1,,", "a,,b")]
    for value, says in [*wrong, ("ftp://h", "'ftp://h' is not"), ("u:secret@h", "token=")]:
        monkeypatch.setenv("PBA_SERVER", value)
        for make in (Client, lambda: Loader(dataset="shapes")):
            with pytest.raises(ValueError, match=f"^PBA_SERVER in the environment: .*{says}") as refusal:
                make()
            assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "reason", "command"),
    [
        ("127.0.0.1:1", "connection refused", "pba serve --listen 127.0.0.1:1"),
        ("localhost:1", "connection refused", "pba serve --listen 127.0.0.1:1"),
        ("127.0.0.1:1/prefix", "connection refused", None),
        ("unix:/nobody/pba.sock", "no such file or directory", "pba serve --socket /nobody/pba.sock"),
    ],
)
def test_an_address_where_nobody_is_fails_at_once(
    url: str, reason: str, command: Optional[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pba_client import _http

    monkeypatch.setattr(_http.Canceller, "pause", lambda self, seconds: pytest.fail("it waits"))
    client = Client(url)
    for call in (client.datasets, lambda: client.epoch("shapes", 0), lambda: Loader(url, "shapes")):
        with pytest.raises(UnreachableError) as failure:
            call()
        advice = f" Start one with: {command}" if command else ""
        advice += "; wait_seconds=60 waits for a server that is being started"
        assert str(failure.value) == f"cannot reach {client.urls[0]}: {reason}; is a server running there?{advice}"


def test_servers_that_are_away_are_all_named() -> None:
    client = Client(["127.0.0.1:1", "127.0.0.1:2"])
    for call in (client.datasets, lambda: client.epoch("shapes", 0)):
        with pytest.raises(UnreachableError) as failure:
            call()
        first, second = str(failure.value).split("; cannot reach ")
        assert second.endswith("; wait_seconds=60 waits for a server that is being started")
        assert first.startswith("cannot reach http://127.0.0.1:1: ")
        assert second.startswith("http://127.0.0.1:2: ")


def test_where_a_server_usually_is_the_advice_is_short() -> None:
    from pba_client._address import parse_url

    assert parse_url("127.0.0.1:8080").advice().endswith("Start one with: pba serve")
    for url, listen in [("pictures.example", "0.0.0.0:80"), ("10.0.0.7:9", "10.0.0.7:9"), ("[fe80::1]:9", "[fe80::1]:9")]:
        start = f"is a server running there? Start one there with: pba serve --listen {listen}; at an address that "
        assert parse_url(url).advice().startswith(start)
    assert parse_url("pictures.example/prefix").advice() == "is a server running there?"
    assert parse_url("https://127.0.0.1:8080").advice() == "is a server running there?"
