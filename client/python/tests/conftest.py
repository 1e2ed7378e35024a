"""The real server, and proxies that cut what it sends."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, List, Optional

import numpy as np
import pytest
from certificates import Authority
from PIL import Image

from pba_client import Client, Epoch, _private

# What a run is meant to test: without it, tests would be left out, and the run would pass.
for needed in filter(None, os.environ.get("PBA_TEST_NEEDS", "").split(",")):
    if find_spec(needed) is None:
        pytest.exit(f"{needed} is not installed, which PBA_TEST_NEEDS names", returncode=1)

REPOSITORY = Path(__file__).resolve().parents[3]
START_SECONDS = 120
STOP_SECONDS = 20
# How long a server may take to notice that a client has gone.
NOTICE_SECONDS = 20


def binary() -> Path:
    """The server: $PBA_BIN, or what the repository's build left."""
    if os.environ.get("PBA_BIN"):
        return Path(os.environ["PBA_BIN"])
    built = [REPOSITORY / "target" / profile / "pba" for profile in ("debug", "release")]
    found = [path for path in built if path.exists()]
    if not found:
        pytest.fail(
            "there is no server to test against: `make test` in the repository's root builds "
            "target/debug/pba; or set PBA_BIN to a pba binary",
            pytrace=False,
        )
    # The one built last is the one that is worked on.
    return max(found, key=lambda path: path.stat().st_mtime)


class Server:
    """A running ``pba serve``, on a free port unless it is told another, over TLS if ``ca`` has signed its certificate."""

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        wait: bool = True,
        listen: str = "127.0.0.1:0",
        ca: Optional[Path] = None,
    ) -> None:
        program = binary()
        data_dir.mkdir(parents=True, exist_ok=True)
        self._log = open(data_dir / "stderr.log", "wb")
        self._scheme = "http" if ca is None else "https"
        self._tls = None if ca is None else ssl.create_default_context(cafile=str(ca))
        self._process = subprocess.Popen(
            [str(program), "serve", "--listen", listen, "--data-dir", str(data_dir), *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            # No load balancer stands before it.
            env={"PBA_DRAIN_DELAY_SECONDS": "0", **os.environ},
        )
        try:
            self.url = self._first_line()[len("listening on ") :].strip()
            if wait:
                self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        host, port = self.url[len(f"{self._scheme}://") :].split(":")
        self.address = (host, int(port))

    def _wait_until_ready(self) -> None:
        """Waits until every dataset was imported."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=START_SECONDS, context=self._tls):
                    return
            except urllib.error.HTTPError as error:
                assert error.code == 503, error
                time.sleep(0.05)
        raise AssertionError(f"the server is not ready: {Path(self._log.name).read_text()}")

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        line = self._process.stdout.readline().decode() if ready else ""
        if not line.startswith(f"listening on {self._scheme}://"):
            raise AssertionError(f"the server did not start: {line!r}, {Path(self._log.name).read_text()}")
        return line

    def kill(self) -> None:
        """Ends it in the middle of whatever it does."""
        self._process.kill()
        self._close()

    def stop(self) -> None:
        """Ends it as an operator would."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._close()

    def _close(self) -> None:
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def metric(self, name: str) -> float:
        """A metric without labels, now."""
        text = http_get(self.url + "/metrics").decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, f"there is no metric {name}"
        return float(found[1])

    def wait_idle(self) -> None:
        """Waits until no stream is being sent."""
        wait_for(lambda: self.metric("pba_streams_active") == 0, "streams stay active")


def taken_by_threads(epoch: Epoch) -> None:
    """Three threads read an epoch: each batch goes to one of them, and all of them end."""
    taken: List[int] = []

    def take() -> None:
        for batch in epoch:
            taken.append(batch.number)

    threads = [threading.Thread(target=take, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(taken) == list(range(len(epoch)))


def close_ends_a_wait(epoch: Epoch) -> None:
    """Another thread, which waits for the server, ends when the epoch is closed, with an error."""
    failures: List[Exception] = []

    def loop() -> None:
        try:
            list(epoch)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    wait_for(lambda: epoch.received >= 2, "nothing comes")
    epoch.close()
    thread.join(10)
    assert not thread.is_alive() and len(failures) == 1


def http_get(url: str) -> bytes:
    """Reads a URL with none of the code under test."""
    import urllib.request

    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read()


def wait_for(condition, complaint: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + NOTICE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pba")


@pytest.fixture(scope="session")
def shared_server(data_dir: Path) -> Iterator[Server]:
    server = Server(data_dir / "server")
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A server with the built-in dataset; no test leaves a stream or a thread behind."""
    yield shared_server
    shared_server.wait_idle()
    wait_for(lambda: not client_threads(), f"threads are left behind: {client_threads()}")


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Signs certificates of servers, and is known to no client."""
    return Authority("an authority")


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.url)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator:  # type: ignore[type-arg]
    """Starts further servers; each ends with the test."""
    started: List[Server] = []

    def start(*options: str, wait: bool = True) -> Server:
        started.append(Server(tmp_path / f"server-{len(started)}", *options, wait=wait))
        return started[-1]

    yield start
    for server in started:
        with contextlib.suppress(ProcessLookupError):
            server.kill()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 images of 2 classes for training, and 20 for tests."""
    folder = tmp_path_factory.mktemp("images") / "pictures"
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 10)):
        for name in ("cat", "dog"):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(place / f"{number:02}.png")
    return folder


@pytest.fixture
def copied(pictures: Path, tmp_path: Path) -> Path:
    """Pictures that a test may change."""
    return Path(shutil.copytree(pictures, tmp_path / "copied"))


def replace(folder: Path) -> None:
    """Puts another image in the place of the first one."""
    first, other = folder / "train/cat/00.png", folder / "other"
    shutil.copy(folder / "train/dog/00.png", other)
    os.replace(other, first)


def program(folder: Path, code: str) -> str:
    """A program in place of pba, in Python."""
    path = folder / "program"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\n")
    path.chmod(0o755)
    return str(path)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return shown.strip()[:1] not in ("", "Z")


class Home:
    """Where the private servers of a test are.

    Attributes:
        runtime: their folders, with sockets, ids of processes and logs.
        cache: what they pack.
    """

    def __init__(self, base: Path) -> None:
        self.runtime, self.cache = base / "r", base / "c"
        self.runtime.mkdir(mode=0o700)

    def folders(self) -> List[Path]:
        """Of the private servers that there are."""
        return sorted(self.runtime.glob("pba-*/*"))

    def processes(self) -> List[int]:
        """The keepers and servers that there are."""
        found = []
        for file in self.runtime.glob("pba-*/*/*.pid"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(int(file.read_text()))
        return [process for process in found if is_alive(process)]

    def wait_until_left(self, *processes: int) -> None:
        """Waits until these processes and every folder are gone."""
        wait_for(lambda: not self.folders(), "a private server is left")
        wait_for(lambda: not any(map(is_alive, processes)), "a process is left")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Private servers go here, and none outlives its test."""
    # A short path: sockets are in it.
    with tempfile.TemporaryDirectory(prefix="pba-") as base:
        home = Home(Path(base))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home.runtime))
        monkeypatch.setenv("XDG_CACHE_HOME", str(home.cache))
        monkeypatch.setenv("PBA_BIN", str(binary()))
        monkeypatch.delenv("PBA_CACHE", raising=False)
        yield home
        for lifeline in list(_private._LIFELINES.values()):
            lifeline.close()
        _private._LIFELINES.clear()
        try:
            wait_for(lambda: not home.processes(), "a process is left")
        finally:
            for process in home.processes():
                os.kill(process, signal.SIGKILL)


def client_threads() -> List[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pba-client")]


PROBLEM = b'{"title": "unauthorized", "detail": "this is no token that I know"}'
UNAUTHORIZED = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(PROBLEM), PROBLEM)
)


class CuttingProxy:
    """Forwards bytes between a client and a server, and cuts connections.

    Args:
        address: where the server is.
        cuts: after how many bytes of its answer each connection in turn is cut; None for never.
            Connections after the last are not cut.
        reset: end with a reset instead of an orderly end.
        hang: at the cut, send nothing more instead of ending.
        tls: how to speak TLS with the client.
        token: refuse requests that do not show it.
        listener: where to listen, instead of a port of its own.
    """

    def __init__(
        self,
        address,  # type: ignore[no-untyped-def]
        cuts: List[Optional[int]],
        *,
        reset: bool = False,
        hang: bool = False,
        tls: Optional[ssl.SSLContext] = None,
        token: Optional[str] = None,
        listener: Optional[socket.socket] = None,
    ) -> None:
        self.target = address
        self._cuts = list(cuts)
        self._reset = reset
        self._hang = hang
        self._tls = tls
        self._token = token
        self.requests: List[str] = []
        self._closed = threading.Event()
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        host, self.port = self._listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            if self._closed.is_set():
                peer.close()
                return
            cut = self._cuts.pop(0) if self._cuts else None
            thread = threading.Thread(target=self._forward, args=(peer, cut), name="proxy")
            self._threads.append(thread)
            thread.start()

    def _forward(self, peer: socket.socket, left: Optional[int]) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(peer)
            peer.settimeout(30)
            if self._tls is not None:
                peer = stack.enter_context(self._tls.wrap_socket(peer, server_side=True))
            request = b""
            while b"\r\n\r\n" not in request:
                piece = peer.recv(65536)
                if not piece:
                    return
                request += piece
            self.requests.append(request.split(b"\r\n")[0].decode())
            if self._token is not None and f"\r\nAuthorization: Bearer {self._token}\r\n".encode() not in request:
                peer.sendall(UNAUTHORIZED)
                return
            if left == 0:
                self._end(peer)
                return
            with socket.create_connection(self.target) as server:
                server.settimeout(30)
                server.sendall(request)
                while True:
                    piece = server.recv(65536 if left is None else min(65536, left))
                    if not piece:
                        return
                    peer.sendall(piece)
                    if left is not None:
                        left -= len(piece)
                        if left == 0:
                            break
            self._end(peer)

    def _end(self, peer: socket.socket) -> None:
        if self._hang:
            self._closed.wait(60)
        elif self._reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname()[:2]).close()
        self._listener.close()
        for thread in self._threads:
            thread.join(30)

    def __enter__(self) -> "CuttingProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
