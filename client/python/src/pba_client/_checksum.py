"""The checksum that each message of a plain stream carries.

`client/wire/src/checksum.rs` defines it: XXH3 over the body, beginning with that over the head, beginning with
the schema's; the head is all that precedes the body, with zeros for the checksum's digits.
"""

from __future__ import annotations

import re
from typing import Any, Dict, NamedTuple

import xxhash

from ._errors import StreamError

REQUEST_HEADER = "pba-request"

_UNSET = b"0" * 16
# A string of a flatbuffer has its length in front and a zero behind it.
_TEXT = re.compile(rb"\x15\x00\x00\x00xxh3:([0-9a-f]{16})\x00")


def of_request(dataset: str, epoch: str, query: Dict[str, str]) -> str:
    """The checksum of a request for a stream, which the answer has in ``REQUEST_HEADER``."""
    parts = [dataset, epoch, *(part for pair in query.items() for part in pair)]
    encoded = [part.encode() for part in parts]
    text = b"".join(b"%d:%b" % (len(part), part) for part in encoded)
    return f"{xxhash.xxh3_64_intdigest(text):016x}"


class Place(NamedTuple):
    """The place of a checksum in the head of a message, and what the head contributes to it."""

    start: int
    end: int
    # Of the head, and the schema before it.
    seed: int

    @classmethod
    def of(cls, head: bytes, stream: int) -> Place:
        """Finds it; ``stream`` is the checksum of the schema, and 0 for that itself.

        Raises:
            StreamError: when there is none, or more than one.
        """
        found = list(_TEXT.finditer(head))
        if len(found) != 1:
            raise StreamError(
                "a message has no checksum; the server is older than this client, or the message was damaged"
            )
        start, end = found[0].span(1)
        return cls(start, end, xxhash.xxh3_64_intdigest(head[:start] + _UNSET + head[end:], stream))

    def check(self, head: bytes, body: Any) -> int:
        """The checksum of a message.

        Raises:
            StreamError: when its bytes have another one.
        """
        expected = xxhash.xxh3_64_intdigest(body, self.seed)
        found = head[self.start : self.end]
        if found != b"%016x" % expected:
            raise StreamError(
                f"the checksum of a message is {found.decode('ascii', 'replace')}, but that of its bytes {expected:016x}: "
                "it was damaged on its way"
            )
        return expected
