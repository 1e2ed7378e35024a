"""The checksum that each message of a plain stream carries.

`client/wire/src/checksum.rs` defines it: XXH3 over the body, seeded with that over the head (seeded with the
schema's checksum, and for the schema with 0) and the number of batches before; the head is all that
precedes the body, with zeros for the checksum's digits. Headers bind each answer to the request.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import xxhash

from ._errors import StreamError

REQUEST_HEADER = "pba-request"
SCHEMA_HEADER = "pba-schema"
BODY_HEADER = "pba-body"

_UNSET = b"0" * 16
# A string of a flatbuffer has its length in front and a zero behind it.
_TEXT = re.compile(rb"\x15\x00\x00\x00xxh3:([0-9a-f]{16})\x00")


def of_request(method: str, target: str) -> str:
    """The checksum of a request, which the answer has in ``REQUEST_HEADER``; ``target`` is the path with the query, as
    they are sent."""
    path, _, query = target.partition("?")
    text = f"{method} ".encode()
    for part in path[path.startswith("/") :].split("/"):
        text += _part(b"/", part)
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.replace("+", " ").partition("=")
            text += _part(b"?", name) + _part(b"=", value)
    return f"{xxhash.xxh3_64_intdigest(text):016x}"


def _part(mark: bytes, text: str) -> bytes:
    part = unquote_to_bytes(text)
    return b"%b%d:%b" % (mark, len(part), part)


def of_body(body: bytes, request: str) -> str:
    """The checksum of a complete body as the answer to a request, which the answer has in ``BODY_HEADER``."""
    return f"{xxhash.xxh3_64_intdigest(body, int(request, 16)):016x}"


class Place(NamedTuple):
    """The place of a checksum in the head of a message, and what the head contributes to it."""

    start: int
    end: int
    # Of the head, and what came before it.
    seed: int

    @classmethod
    def of(cls, head: bytes, before: int) -> Place:
        """Finds it; ``before`` is the checksum of the schema, and 0 for that itself.

        Raises:
            StreamError: when there is none, or more than one.
        """
        found = list(_TEXT.finditer(head))
        if len(found) != 1:
            raise StreamError(
                "a message has no checksum; the server is older than this client, or the message was damaged"
            )
        start, end = found[0].span(1)
        return cls(start, end, xxhash.xxh3_64_intdigest(head[:start] + _UNSET + head[end:], before))

    def check(self, head: bytes, body: Any, number: int) -> int:
        """The checksum of a message, before which so many batches came.

        Raises:
            StreamError: when its bytes have another one.
        """
        expected = xxhash.xxh3_64_intdigest(body, self.seed ^ number)
        found = head[self.start : self.end]
        if found != b"%016x" % expected:
            raise StreamError(
                f"the checksum of a message is {found.decode('ascii', 'replace')}, and should be {expected:016x}: "
                "it was damaged on its way, or another was expected here"
            )
        return expected


def of_schema(head: bytes, request: str) -> str:
    """The checksum of a schema's message as the answer to a request, which the answer has in ``SCHEMA_HEADER``.

    Raises:
        StreamError: when it has no place for a checksum.
    """
    return f"{xxhash.xxh3_64_intdigest(b'', Place.of(head, int(request, 16)).seed):016x}"
