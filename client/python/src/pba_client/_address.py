"""The address of a server: its URL, checked and parsed."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import List, NamedTuple
from urllib.parse import quote, urlsplit

PORTS = {"http": 80, "https": 443}
# The default port of `pba serve`.
SERVE_PORT = 8080
# Names the servers that are meant where none is named, with commas between them; also of the command `pba`.
VARIABLE = "PBA_SERVER"


class Address(NamedTuple):
    """A server's URL, parsed."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    # Path of a Unix socket, used instead of host and port.
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"{self.scheme}://{self._authority}{self.prefix}"

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def advice(self) -> str:
        """Advice when no server listens there."""
        if self.path:
            command = f"pba serve --socket {self.path}"
        elif self.scheme != "http" or self.prefix:
            return "is a server running there?"
        elif not is_loopback(self.host):
            # The option takes no names.
            listen = self._authority if is_number(self.host) else f"0.0.0.0:{self.port}"
            return (
                f"is a server running there? Start one there with: pba serve --listen {listen}; at an address that other "
                "machines can reach it wants tokens (pba token new), or --insecure"
            )
        elif self.port == SERVE_PORT and self.host in ("127.0.0.1", "localhost"):
            command = "pba serve"
        else:
            command = f"pba serve --listen {self._authority.replace('localhost', '127.0.0.1')}"
        return f"is a server running there? Start one with: {command}"


def is_loopback(host: str) -> bool:
    """Whether a host's name or number is this machine's own."""
    return ip_address(host.partition("%")[0]).is_loopback if is_number(host) else host == "localhost"


def is_number(host: str) -> bool:
    """Whether a host is given by its number, and not by a name."""
    try:
        ip_address(host.partition("%")[0])
        return True
    except ValueError:
        return False


def parse_url(url: str) -> Address:
    """Parses a server's URL; without a scheme ``http://`` is assumed.

    Raises:
        ValueError: when it is none of ``http://HOST[:PORT][/PREFIX]``, ``https://`` likewise and
            ``unix:PATH``.
    """
    if "@" in url and not url.startswith("unix:"):
        # Not shown: it may contain a password, with a slash in it.
        raise ValueError("a server's URL must not contain a user or a password; pass a token as token=")
    try:
        return _parse(url)
    except ValueError as error:
        raise ValueError(
            f"{url!r} is not a server's URL: {error}; expected http://HOST:PORT, https://HOST:PORT or unix:PATH"
        ) from None


def usual_addresses() -> List[Address]:
    """The servers that the environment names, or the default of ``pba serve``. A comma at the end names none.

    Raises:
        ValueError: when the variable does not hold URLs with commas between them.
    """
    urls = os.environ.get(VARIABLE) or f"http://127.0.0.1:{SERVE_PORT}"
    listed = [url.strip() for url in urls.split(",")]
    if len(listed) > 1 and not listed[-1]:
        listed.pop()
    try:
        return [parse_url(url) for url in listed]
    except ValueError as error:
        raise ValueError(f"{VARIABLE} in the environment: {error}, or several with commas between them") from None


def _is_bracketed(authority: str) -> bool:
    """Whether it is ``[ADDRESS]`` or ``[ADDRESS]:PORT``."""
    found = re.fullmatch(r"\[([^]%]*)(%[^]]*)?\](:.*)?", authority)
    try:
        return found is not None and ip_address(found.group(1)).version == 6
    except ValueError:
        return False


def _parse(url: str) -> Address:
    if url == "unix:":
        raise ValueError("it names no path")
    if url.startswith("unix:"):
        return Address("unix", "localhost", PORTS["http"], "", url[len("unix:") :])
    if url.startswith(("/", ".", "~")) or (url.endswith(".sock") and "://" not in url):
        raise ValueError(f"it is a path; a Unix socket is written unix:{url}")
    if url.isdigit():
        raise ValueError(f"it is a number; is 127.0.0.1:{url} meant?")
    scheme = re.split("[:;/]", url)[0].lower()
    if "://" in url and scheme not in PORTS:
        raise ValueError(f"{scheme}:// is not supported")
    if "://" not in url:
        if scheme in PORTS:
            raise ValueError(f"{scheme} is not followed by ://")
        url = f"http://{url}"
    authority = url.partition("://")[2].partition("/")[0]
    # Checked first, because versions of Python parse it differently.
    if ("[" in authority or "]" in authority) and not _is_bracketed(authority):
        raise ValueError("brackets must enclose an IPv6 address, and only a port may follow them")
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("it names no host")
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError("it holds a space or a control character")
    if "\\" in url:
        raise ValueError("it holds a backslash")
    if parts.query or parts.fragment:
        raise ValueError("it holds more than host, port and path")
    if parts.netloc.endswith(":"):
        raise ValueError("it names no port after the colon")
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    return Address(parts.scheme, parts.hostname, port, quote(parts.path.rstrip("/"), safe="/%:"))
