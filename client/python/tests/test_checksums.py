"""Messages that were damaged on their way, or belong elsewhere."""

from __future__ import annotations

import urllib.request
from typing import List, Tuple

import pytest
from conftest import Server
from script import Script, answer, answers, messages, of_the_request, stream

from pba_client import Client, CutError, StreamError
from pba_client._request import EpochRequest


def test_every_flipped_bit_of_a_stream_is_noticed() -> None:
    """Whatever byte of a message is damaged: the batches are right, or there is an error."""
    right = stream(3, 3)
    end = len(right) - 8
    for place in range(0, end):
        damaged = bytearray(right)
        damaged[place] ^= 1 << place % 8
        with Script(answer(bytes(damaged)), answer(right)) as script:
            epoch = Client(script.url, retries=0, stall_seconds=2)
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
        Client(script.url, retries=0).epoch("d", 0)
    with Script(body) as script:
        assert len(list(Client(script.url, checksums=False).epoch("d", 0))) == 2


def test_a_server_that_answers_another_request_is_left() -> None:
    """As where a bit of the request was flipped on its way."""
    other = of_the_request("GET /v1/datasets/d/epochs/0/batches?shard=1/2 HTTP/1.1", answer(stream(2, 2)))
    with Script(other) as script, pytest.raises(StreamError, match="answers another request than was sent"):
        Client(script.url, retries=0).epoch("d", 0)
    with Script(other, answer(stream(2, 2))) as script:
        assert len(list(Client(script.url, retries=1).epoch("d", 0))) == 2
