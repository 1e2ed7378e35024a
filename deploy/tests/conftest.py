"""What the tests of deploy/ share: the repository, the tools, and the server."""

from __future__ import annotations

import functools
import os
import re
import select
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
# What fetch-tools.sh fetched.
TOOLS = REPOSITORY / ".tools" / "deploy"
START_SECONDS = 180


def environment() -> Dict[str, str]:
    """Where programs find each other, those of this Python and those that were fetched after the system's own."""
    libraries = [str(folder) for folder in (TOOLS / "usr" / "lib").glob("*-linux-gnu")]
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), str(TOOLS / "usr" / "bin")]
    known = {name: value for name, value in os.environ.items() if not name.startswith("PBA_")}
    known["PATH"] = os.pathsep.join(path)
    if libraries:
        known["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), *libraries]))
    return known


def tool(name: str, where: str) -> str:
    """The path of a program; without it, the test is left out and says where to get it."""
    path = shutil.which(name, path=environment()["PATH"])
    if path is None:
        pytest.skip(f"{name} is not here: {where}")
    return path


def promtool() -> str:
    return tool("promtool", "Debian's package prometheus has it")


@functools.lru_cache(maxsize=None)
def kustomize(folder: Path) -> str:
    """What kustomize makes of a folder."""
    return run([kubectl(), "kustomize", str(folder)]).stdout


@functools.lru_cache(maxsize=None)
def kubectl() -> str:
    path = tool("kubectl", "deploy/kubernetes is tested with `kubectl kustomize`")
    said = run([path, "version", "--client", "--output=yaml"], check=False).stdout
    found = re.search(r"kustomizeVersion: v(\d+)", said)
    # Older ones know no components.
    if not found or int(found[1]) < 5:
        pytest.skip(f"kubectl brings no kustomize 5 or newer; it says: {said.strip()[:200]}")
    return path


def run(command: List[str], check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Runs a program to its end; if it fails, the test does, with all that was said."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        timeout=300,
        **options,
    )
    assert not check or done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}"
    return done


# A server ends as soon as its streams have: no load balancer has to notice.
AT_ONCE = {"PBA_DRAIN_DELAY_SECONDS": "0"}


def binary() -> Path:
    """The server: $PBA_BIN, or what the repository's build left last."""
    if os.environ.get("PBA_BIN"):
        return Path(os.environ["PBA_BIN"])
    built = [REPOSITORY / "target" / profile / "pba" for profile in ("debug", "release")]
    found = [path for path in built if path.exists()]
    if not found:
        pytest.fail(
            "there is no server: `make test` in the repository's root builds target/debug/pba; or set PBA_BIN",
            pytrace=False,
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def version() -> str:
    """The version of everything, which stands in Cargo.toml."""
    text = (REPOSITORY / "Cargo.toml").read_text()
    found = re.search(r'\[workspace\.package\]\nversion = "([^"]+)"', text)
    assert found, "Cargo.toml has no version of the workspace"
    return found[1]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules(file: str) -> List[Dict[str, Any]]:
    """The rules of a file in deploy/prometheus."""
    return [rule for group in load(DEPLOY / "prometheus" / file)["groups"] for rule in group["rules"]]


def metrics_of(expression: str) -> List[str]:
    """The server's metrics that a query names, without what histograms append."""
    return [re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"(?<![:\w])pba_\w+", expression)]


class Server:
    """A running ``pba serve``, from the line that it listens to its end."""

    def __init__(self, command: List[str], log: Path, **options: Any) -> None:
        self._log = open(log, "wb")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, **options)
        try:
            self.url = self._first_line()[len("listening on ") :].strip()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline().decode() if ready else ""
        assert line.startswith("listening on http"), f"the server did not start: {line!r}, {self.log()}"
        return line

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                get(self.url + "/readyz")
                return
            except urllib.error.HTTPError:
                time.sleep(0.1)
        raise AssertionError(f"the server is not ready: {self.log()}")

    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def stop(self) -> int:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        return self.process.returncode


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with one worker, so that a client can be faster than it."""
    command = [
        str(binary()),
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        str(tmp_path / "data"),
        "--threads",
        "1",
    ]
    started = Server(command, tmp_path / "server.log", env={**environment(), **AT_ONCE})
    yield started
    started.stop()
