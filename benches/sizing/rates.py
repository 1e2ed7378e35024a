"""What one core of the server does in a second, as it was measured: `rates.json`."""

import json
import pathlib
from typing import Dict, NamedTuple

FILE = pathlib.Path(__file__).with_name("rates.json")


class Work(NamedTuple):
    """One way to make images.

    Attributes:
        shows: in words.
        images_per_core_second: that one core makes and sends.
        bytes_per_image: on the wire, with label and index.
        measured: how.
    """

    shows: str
    images_per_core_second: float
    bytes_per_image: float
    measured: str


def works() -> Dict[str, Work]:
    return {name: Work(**work) for name, work in json.loads(FILE.read_text())["works"].items()}


def circumstances() -> str:
    return json.loads(FILE.read_text())["circumstances"]
