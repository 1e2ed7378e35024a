"""Messages that were damaged on their way, or belong elsewhere."""

from __future__ import annotations

import socket
import urllib.request
from typing import List, Optional, Tuple

import pytest
from conftest import Server
from script import Script, answer, answers, messages, of_the_request, stream

from pba_client import Client, CutError, RefusedError, StreamError, UnreachableError
from pba_client._request import EpochRequest


def test_every_flipped_bit_of_a_stream_is_noticed() -> None:
    """Whatever byte of a message is damaged: the batches are right, or there is an error."""
    right = stream(3, 3)
    end = len(right) - 8
    for place in range(0, end):
        damaged = bytearray(right)
        damaged[place] ^= 1 << place % 8
        with Script(answer(bytes(damaged)), answer(right)) as script:
            epoch = Client(script.url, retry_seconds=0, stall_seconds=2)
            with pytest.raises((StreamError, CutError)):
                list(epoch.epoch("d", 0))
                pytest.fail(f"byte {place} was damaged, and it was not noticed")


def test_a_message_that_belongs_elsewhere_is_noticed(server: Server) -> None:
    """Whole messages, each as the server sent it: of another shard at the same place, twice, or exchanged."""

    def whole(shard: int) -> Tuple[bytes, List[bytes], int]:
        target = EpochRequest("shapes", 3, split="test", schedule="cifar10-pba", shard=(shard, 2)).target(0)
        with urllib.request.urlopen(server.url + target) as sent:
            stream, asked = sent.read(), int(sent.headers["pba-request"], 16)
        pieces = [head + body for head, body in messages(stream)]
        return stream[sum(map(len, pieces)) :], pieces, asked

    (end, right, asked), (_, other, _) = whole(0), whole(1)
    assert right[0] != other[0]

    def read(wrong: List[bytes], **options: bool) -> Tuple[bytes, int]:
        first = answer(b"".join(wrong) + end, more=answers(asked, right[0]))
        with Script(first) as script:
            client = Client([script.url, server.url], **options)
            request = EpochRequest("shapes", 3, split="test", schedule="cifar10-pba", shard=(0, 2))
            with client._open(request) as epoch:
                return b"".join(batch.image.tobytes() for batch in epoch), epoch.resumes

    expected, _ = read(right)
    cases = [other, [other[0], *right[1:]], [right[0], right[2], right[1], *right[3:]]]
    for at in (1, 2, 3, len(right) - 1):
        cases.append([*right[:at], other[at], *right[at + 1 :]])
        if at > 1:
            cases.append([*right[:at], right[at - 1], *right[at + 1 :]])
    for number, wrong in enumerate(cases):
        assert read(wrong) == (expected, 1 if number > 1 else 0), f"case {number}"
        # That the checksum is what notices. A schema by itself changes no pixel.
        if number != 1:
            try:
                assert read(wrong, checksums=False) != (expected, 0), f"case {number}"
            except StreamError:
                pass


def test_a_damaged_batch_is_fetched_again() -> None:
    right = stream(3, 3)
    # The value 1 of the last image.
    place = right.rindex(bytes([2, 1, 2]))
    damaged = right[:place] + bytes([3]) + right[place + 1 :]
    rest = stream(1, 1, first=2)
    with Script(answer(damaged), answer(rest)) as script:
        epoch = Client(script.url).epoch("d", 0)
        assert [batch.image[0, 0, 0, 0] for batch in epoch] == [0, 1, 2]
        assert epoch.resumes == 1
    with Script(answer(damaged)) as script:
        epoch = Client(script.url, checksums=False).epoch("d", 0)
        assert [batch.image[0, 0, 0, 0] for batch in epoch] == [0, 1, 3]


def test_a_server_without_checksums_is_refused_unless_it_is_trusted() -> None:
    body = answer(stream(2, 2).replace(b"xxh3:", b"none:"))
    with Script(body) as script, pytest.raises(StreamError, match="has no checksum; the server is older"):
        Client(script.url, retry_seconds=0).epoch("d", 0)
    with Script(body) as script:
        assert len(list(Client(script.url, checksums=False).epoch("d", 0))) == 2


def test_a_server_that_answers_another_request_is_left() -> None:
    """As where a bit of the request was flipped on its way."""
    other = of_the_request("GET /v1/datasets/d/epochs/0/batches?shard=1/2 HTTP/1.1", answer(stream(2, 2)))
    with Script(other) as script, pytest.raises(StreamError, match="the answer is to another request than was sent"):
        Client(script.url, retry_seconds=0).epoch("d", 0)
    with Script(other, answer(stream(2, 2))) as script:
        assert len(list(Client(script.url).epoch("d", 0))) == 2


def rewriting(server: Server, part: bytes, other: bytes) -> Script:
    """Asks the server for something else than it is asked for."""
    return Script(*[lambda request: exchange(server, request.replace(part, other, 1))] * 9)


def exchange(server: Server, request: bytes) -> bytes:
    if not request:
        return b""  # the last connection, which wakes the script
    with socket.create_connection(server.address, 10) as peer:
        peer.sendall(request)
        return b"".join(iter(lambda: peer.recv(65536), b""))


def test_an_answer_to_another_request_is_not_believed(server: Server) -> None:
    """Neither a document nor a refusal."""
    with rewriting(server, b"schedules/cifar10-pba", b"schedules/svhn-pba") as script:
        with pytest.raises(StreamError, match="the answer is to another request than was sent: pba-request is"):
            Client(script.url, retry_seconds=0).schedule("cifar10-pba")
    request = dict(split="test", batch_size=50)
    with Client(server.url).epoch("shapes", 3, **request) as epoch:
        expected = [batch.image.tobytes() for batch in epoch]
    for part, other, says in (
        (b"batch_size=50", b"batch_size=0x", "the answer is to another request"),
        (b"/batches?", b"/batchez?", "the answer is to another request"),
        (b"/epochs/3/", b"/epochs/2/", "the answer is to another request"),
        (b"Host:", b"Hosu:", "the header Host was changed on its way"),
        (b"Host: 127.", b"Host: 927.", "the header Host was changed on its way"),
    ):
        with rewriting(server, part, other) as script:
            with pytest.raises(StreamError, match=says):
                Client(script.url, retry_seconds=0).epoch("shapes", 3, **request)
        with rewriting(server, part, other) as script:
            with Client([script.url, server.url]).epoch("shapes", 3, **request) as epoch:
                assert [batch.image.tobytes() for batch in epoch] == expected


def test_a_document_is_as_it_was_sent(server: Server) -> None:
    """Whatever bit is flipped of it, or of a refusal."""
    for name in ("cifar10-pba", "no"):
        request = b"GET /v1/schedules/%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % name.encode()
        sent = exchange(server, request)
        expected, as_sent = ask(server.url, name), 0
        assert expected is not None
        for bit in range(0, len(sent) * 8, 101 if name == "cifar10-pba" else 11):
            damaged = bytearray(sent)
            damaged[bit // 8] ^= 1 << bit % 8
            with Script(lambda _, damaged=bytes(damaged): damaged) as script:
                found = ask(script.url, name)
            assert found in (None, expected), f"bit {bit}"
            as_sent += found is not None
        assert as_sent > 0


def ask(url: str, name: str) -> Optional[str]:
    """A schedule's document or the reason of a refusal; nothing where that could not be had."""
    try:
        return str(Client(url, retry_seconds=0).schedule(name))
    except RefusedError as refused:
        return refused.detail
    except (StreamError, UnreachableError):
        return None
