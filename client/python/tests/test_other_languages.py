"""Programs in other languages read the stream with Arrow's own packages: ``client/other``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import Dict, List

import pyarrow as pa
import pytest
from conftest import REPOSITORY, CuttingProxy, Server, http_get
from script import Script, answer

from pba_client import Client

OTHER = REPOSITORY / "client" / "other"
# 1,000 rows in 4 batches, the last of which is shorter.
REQUEST = {"schedule": "cifar10-pba", "epochs": 200, "shard": "0/10", "batch_size": 300}
SECONDS = 300
# What npm says where it cannot be the fault of what is committed here.
NPM_CANNOT = (
    "ENOTFOUND EAI_AGAIN ECONNREFUSED ECONNRESET ENETUNREACH EHOSTUNREACH ETIMEDOUT ERR_SOCKET_TIMEOUT "
    "E401 E403 E404 E502 E503 E504 ETARGET"
)


TARGET = "/v1/datasets/shapes/epochs/3/batches?" + "&".join(f"{key}={value}" for key, value in REQUEST.items())


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value


@pytest.fixture(scope="module")
def expected(shared_server: Server) -> str:
    """What a program is to print of an epoch, as this client reads it."""
    columns: Dict[str, bytes] = {"image": b"", "label": b"", "index": b""}
    batches = list(Client(shared_server.url).epoch("shapes", 3, **REQUEST))
    for batch in batches:
        for name in columns:
            columns[name] += getattr(batch, name).tobytes()
    assert [len(batch) for batch in batches] == [300, 300, 300, 100]
    checksums = [f"{name} {fnv1a(column):016x}\n" for name, column in columns.items()]
    return "".join(["rows 1000\n", "batches 4\n", *checksums])


@pytest.fixture
def shortened(server: Server) -> bytes:
    """An epoch that ends between two batches, where Arrow finds nothing missing."""
    with pa.ipc.open_stream(http_get(server.url + TARGET)) as reader:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, reader.schema) as writer:
            writer.write_batch(reader.read_next_batch())
            writer.write_batch(reader.read_next_batch())
    return sink.getvalue().to_pybytes()


def run(command: List[str], stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, input=stdin, capture_output=True, timeout=SECONDS)


def refused(command: List[str], says: str, stdin: bytes = b"") -> None:
    """A program that ends with an error, and prints nothing that looks like a whole epoch."""
    ended = run(command, stdin)
    assert (ended.returncode, ended.stdout) == (1, b""), ended
    assert re.match(f"error: .*{says}", ended.stderr.decode(), re.DOTALL), ended.stderr


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program in C++, with the Arrow of the pyarrow that runs here."""
    program = tmp_path_factory.mktemp("cpp") / "read_epoch"
    flags = run([sys.executable, str(OTHER / "cpp/pyarrow_flags.py")])
    assert flags.returncode == 0, flags.stderr.decode()
    compiler = shlex.split(os.environ.get("CXX") or "c++") + ["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror"]
    source = str(OTHER / "cpp/read_epoch.cpp")
    built = run([*compiler, "-o", str(program), source, *shlex.split(flags.stdout.decode())])
    assert built.returncode == 0, built.stderr.decode()
    return str(program)


def test_cpp_reads_an_epoch(server: Server, cpp: str, expected: str, shortened: bytes) -> None:
    whole = http_get(server.url + TARGET)
    assert run([cpp], whole).stdout.decode() == expected
    refused([cpp], "the stream was cut: 600 of 1000 rows, 2 of 4 batches", shortened)
    refused([cpp], "Expected to be able to read", whole[: len(whole) // 2])
    refused([cpp], "", b"")
    refused([cpp], "", b"<html>")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> List[str]:
    """The program for Node, beside the packages of its lock file, as npm installs them."""
    found, npm = shutil.which("node"), shutil.which("npm")
    version = run([found, "--version"]).stdout.decode() if found else ""
    if npm is None or int(re.sub(r"v?(\d*).*", r"\1", version.strip()) or 0) < 18:
        pytest.skip("there is no npm with Node 18 or later")
    assert found
    folder = tmp_path_factory.mktemp("node") / "node"
    shutil.copytree(OTHER / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    installed = subprocess.run([npm, "ci", *options], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    if installed.returncode != 0:
        print(installed.stderr)
        if any(f"code {code}\n" in installed.stderr for code in NPM_CANNOT.split()):
            pytest.skip("npm reaches no registry with the packages of client/other/node")
        pytest.fail(f"npm ci: {installed.stderr}")
    return [found, str(folder / "read_epoch.mjs")]


def test_node_reads_an_epoch(server: Server, node: List[str], expected: str, shortened: bytes) -> None:
    ended = run([*node, server.url + TARGET])
    assert ended.stdout.decode() == expected, ended.stderr
    with CuttingProxy(server.address, [1_500_000]) as proxy:
        refused([*node, proxy.url + TARGET], "")
    with Script(answer(shortened)) as script:
        refused([*node, script.url + TARGET], "the stream was cut: 600 of 1000 rows, 2 of 4 batches")
    refused([*node, server.url + TARGET.replace("300", "0")], "400: .*batch_size")
    assert run(node).returncode == 2


def test_what_node_installs_is_pinned() -> None:
    """By version and content, and from whatever registry npm is told to use."""
    lock = (OTHER / "node/package-lock.json").read_text()
    packages = lock.count('"node_modules/')
    assert packages > 0 and lock.count('"integrity": "sha512-') == packages
    assert "://" not in lock
    assert re.search(r'"apache-arrow": "\d+\.\d+\.\d+"', (OTHER / "node/package.json").read_text())
