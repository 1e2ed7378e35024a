"""What a client outlasts: answers that no PBA server sends, flipped bits, and outages in the middle of a run."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from typing import Iterator, List, Optional

import pyarrow as pa
import pytest
from conftest import CuttingProxy, Server
from script import PROBLEM, Script, answer, problem, refusal, stream

from pba_client import Client, CutError, Loader, PbaError, RefusedError, StreamError, _client
from pba_client._checksum import of_request
from pba_client._request import EpochRequest

# 40 images in 6 batches.
REQUEST = {"split": "test", "shard": (0, 50), "batch_size": 7, "schedule": "cifar10-pba"}

# Flips of each kind.
FLIPS = 40

NOT_FOUND = problem("no dataset", 404, "not-found").encode()
# Of other programs; and refusals that were damaged on their way.
FOREIGN = [
    answer(b"<h1>hello", kind="text/html"),
    answer(b"<h1>no such page", "404 Not Found", "text/html"),
    answer(NOT_FOUND.replace(b"urn:pba:problem:not-found", b"about:blank"), "404 Not Found", PROBLEM),
    b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    answer(NOT_FOUND.replace(b"status", b"rtatus"), "404 Not Found", PROBLEM),
    answer(NOT_FOUND, "405 Not Found", PROBLEM),
    answer(NOT_FOUND, "403 Not Found", PROBLEM),
    answer(NOT_FOUND, "404 Not Found", "application/qroblem+json"),
    answer(b"", "300 OK"),
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_what_no_server_sends_is_a_cut(foreign: bytes) -> None:
    """When an epoch is opened, after a cut, and where another replica goes on."""
    begun = stream(4, 4)
    second_batch = [place for place in range(len(begun)) if begun.startswith(b"\xff\xff\xff\xff", place)][2]
    cut = answer(begun)[: second_batch - len(begun) + 10]
    with Script(foreign, foreign, cut, foreign, foreign, answer(stream(3, 3, first=1))) as script:
        epoch = Client(script.url).epoch("d", 0)
        assert [batch.index[0] for batch in epoch] == [0, 1, 2, 3]
    with Script(foreign) as one, Script(answer(stream(2, 2))) as other:
        assert len(list(Client([one.url, other.url]).epoch("d", 0))) == 2


def test_what_other_programs_answer_everywhere_is_told_of_each() -> None:
    one, other = (answer(text, "404 Not Found", "text/html") for text in (b"one page", b"another page"))
    with Script(one) as first, Script(other) as second:
        with pytest.raises(StreamError) as failure:
            Client([first.url, second.url], retry_seconds=0).epoch("d", 0)
    for url, text in ((first.url, "one page"), (second.url, "another page")):
        assert url in str(failure.value) and text in str(failure.value)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_is_asked_for_once(status: int) -> None:
    """The next answer would be another one."""
    with Script(refusal(status, "no"), answer(stream(1, 1))) as script, pytest.raises(RefusedError) as refused:
        Client(script.url).epoch("d", 0)
    assert refused.value.status == status


@contextlib.contextmanager
def outage(server: Server, port: int) -> Iterator[None]:
    """Half a second in which nobody listens; then the server is there again."""
    with contextlib.ExitStack() as stack:

        def come_back() -> None:
            listener = socket.create_server(("127.0.0.1", port))
            stack.enter_context(CuttingProxy(server.address, [], listener=listener))

        timer = threading.Timer(0.5, come_back)
        timer.start()
        yield
        timer.join()


def test_an_outage_between_two_epochs_is_outlasted(server: Server) -> None:
    """One that never had the dataset says nothing of the others."""
    expected = Client(server.url).epoch("shapes", 1, **REQUEST).read_all()
    with Script(*[refusal(404, "no dataset")] * 9) as without:
        for others in ([], [without.url]):
            with CuttingProxy(server.address, []) as proxy:
                client = Client([proxy.url, *others])
                client.epoch("shapes", 0, **REQUEST).read_all()
            with outage(server, proxy.port):
                assert client.epoch("shapes", 1, **REQUEST).read_all().equals(expected)
    with CuttingProxy(server.address, []) as proxy:
        loader = Loader(proxy.url, "shapes", split="test", batch_size=500)
        assert len(list(loader.epoch(0))) == 4
    with outage(server, proxy.port):
        assert len(list(loader.epoch(1))) == 4


def test_a_refusal_beside_a_server_that_is_away_is_not_the_last_word(server: Server) -> None:
    with Script(*[refusal(404, "no dataset")] * 99) as without:
        with CuttingProxy(server.address, [100_000, *[0] * 99]) as proxy:
            epoch = Client([proxy.url, without.url], retry_seconds=0.2, prefetch=0).epoch("shapes", 9, **REQUEST)
            with pytest.raises(CutError) as cut:
                list(epoch)
    assert f"{without.url}: no dataset" in str(cut.value) and f"{proxy.url} did not answer" in str(cut.value)


def test_a_header_that_is_missing_is_named() -> None:
    target = EpochRequest("d", 0, batch_size=128, drop_last=False, seed=0, split="train").target(0)
    asked = of_request("GET", target)
    for missing, others in (("pba-request", "X: PBA-Request"), ("pba-schema", f"PBA-Request: {asked}")):
        with Script(answer(stream(1, 1), more=f"{others}\r\n")) as script:
            with pytest.raises(StreamError) as failure:
                Client(script.url, retry_seconds=0).epoch("d", 0)
        named = f"{script.url}: the answer has no {missing}: it is not a PBA server, or one of another version, or a"
        assert named in str(failure.value)


def test_no_request_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client cannot compare later, it does not ask for."""
    monkeypatch.setattr(_client, "REMEMBERED_MAX", 2)
    answers = [answer(stream(1, 1, seed=str(seed))) for seed in (0, 1)]
    with Script(*answers, answer(stream(1, 1, epoch="1"))) as script:
        client = Client(script.url)
        for seed in (0, 1):
            assert len(list(client.epoch("d", 0, seed=seed))) == 1
        with pytest.raises(PbaError, match="asked for 2 different streams"):
            client.epoch("d", 0, seed=2)
        assert len(list(client.epoch("d", 1, seed=0))) == 1


class Flipping:
    """Forwards connections, and flips a bit of the first answer."""

    def __init__(self, server: Server, bit: int) -> None:
        self._server, self._bit = server, bit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="flipping")
        self._thread.start()

    def _run(self) -> None:
        bit: Optional[int] = self._bit
        while True:
            with contextlib.suppress(OSError):
                peer, _ = self._listener.accept()
                with peer, socket.create_connection(self._server.address) as server:
                    request = peer.recv(65536)
                    if not request:
                        return
                    server.sendall(request)
                    whole = bytearray()
                    while True:
                        piece = server.recv(1 << 20)
                        if not piece:
                            break
                        whole += piece
                    if bit is not None:
                        whole[bit // 8 % len(whole)] ^= 1 << bit % 8
                    bit = None
                    peer.sendall(whole)

    def __enter__(self) -> "Flipping":
        return self

    def __exit__(self, *_: object) -> None:
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(30)
        self._listener.close()


def test_a_flipped_bit_anywhere_is_survived(server: Server) -> None:
    expected = Client(server.url).epoch("shapes", 9, **REQUEST).read_all()
    rng = random.Random(7)
    # In the head, in the schema and the first batch's head, and anywhere.
    bits = [rng.randrange(8 * place) for place in (700, 3000, 130_000) for _ in range(FLIPS)]
    failures: List[str] = []
    for number, bit in enumerate(bits):
        with Flipping(server, bit) as proxy:
            try:
                client = Client(proxy.url, prefetch=number % 3, stall_seconds=2)
                found: pa.Table = client.epoch("shapes", 9, **REQUEST).read_all()
                assert found.equals(expected), f"bit {bit}"
            except PbaError as error:
                failures.append(f"bit {bit}: {error!r}")
    assert not failures
