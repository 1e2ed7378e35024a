"""The wheels, as `make wheels` builds them, in an environment without Rust."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Dict

import pytest
from conftest import REPOSITORY, Home, binary

import pba_client

TOOLS = REPOSITORY / "target/tools"
# Hands maturin the program that is tested, which is built already: it would be compiled again for the wheel.
CARGO = """#!/usr/bin/env python3
import json, os, sys
if sys.argv[1] != "rustc":
    os.execvp("cargo", ["cargo", *sys.argv[1:]])
manifest = os.path.realpath(sys.argv[sys.argv.index("--manifest-path") + 1])
print(json.dumps({
    "reason": "compiler-artifact", "package_id": os.environ["PACKAGE"], "manifest_path": manifest,
    "target": {"kind": ["bin"], "crate_types": ["bin"], "name": "pba", "src_path": manifest, "edition": "2024",
               "doc": True, "doctest": False, "test": True},
    "profile": {"opt_level": "1", "debuginfo": 0, "debug_assertions": True, "overflow_checks": True, "test": False},
    "features": [], "filenames": [os.environ["PROGRAM"]], "executable": os.environ["PROGRAM"], "fresh": True}))
print(json.dumps({"reason": "build-finished", "success": True}))
"""


def run(*command: object, **environment: str) -> str:
    ran = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{command}: {ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (TOOLS / "bin/maturin").exists():
        pytest.skip("there is no maturin in target/tools: `make test` and `make wheels` install it")
    folder = tmp_path_factory.mktemp("wheels")
    cargo = folder / "cargo"
    cargo.write_text(CARGO)
    cargo.chmod(0o755)
    identity = run("cargo", "pkgid", "--offline", "--manifest-path", REPOSITORY / "server/daemon/Cargo.toml").strip()
    script = REPOSITORY / "deploy/release/wheels.sh"
    settings = {"SOURCE_DATE_EPOCH": "1700000000", "CARGO_NET_OFFLINE": "true", "TOOLS": str(TOOLS)}
    run(script, folder / "out", CARGO=str(cargo), PACKAGE=identity, PROGRAM=str(binary().resolve()), **settings)
    return folder / "out"


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with both wheels, and what the client depends on; the path of its Python."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin/python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    # Of a client that PYTHONPATH names, pip would say that it is installed already.
    run(*pip, *wheels.glob("*.whl"), PYTHONPATH="")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path in such a file is searched after the environment's own packages, and its .pth files are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def alone(home: Home, tmp_path: Path) -> Dict[str, str]:
    """Neither Rust nor a pba is found, nor this repository's client."""
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": "", "PBA_BIN": "", "HOME": str(tmp_path)}


def test_what_is_in_the_wheels(wheels: Path) -> None:
    (client,) = wheels.glob("pba_client-*.whl")
    (server,) = wheels.glob("pba_server-*.whl")
    version = pba_client.__version__
    assert client.name == f"pba_client-{version}-py3-none-any.whl"
    assert server.name.startswith(f"pba_server-{version}-py3-none-manylinux_2_"), server.name
    with zipfile.ZipFile(client) as inside:
        names = inside.namelist()
        sources = {path.name for path in Path(pba_client.__file__).parent.iterdir() if path.is_file()}
        assert {name.split("/")[1] for name in names if name.startswith("pba_client/")} == sources
        assert any(name.endswith("LICENSE-MIT") for name in names)
    with zipfile.ZipFile(server) as inside:
        names = inside.namelist()
        program = inside.getinfo(f"pba_server-{version}.data/scripts/pba")
        assert program.external_attr >> 16 & stat.S_IXUSR
        assert inside.read(program) == binary().read_bytes()
        for notice in ("LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY.txt"):
            assert f"pba_server-{version}.dist-info/licenses/{notice}" in names
        bill = inside.read(f"pba_server-{version}.dist-info/sboms/pba-server.cyclonedx.json").decode()
        for linked in ('"axum"', '"mozjpeg-sys"', '"pba-augment"', '"ring"'):
            assert f'"name": {linked}' in bill, linked


def test_the_demo_runs_without_rust(environment: Path, alone: Dict[str, str], tmp_path: Path) -> None:
    program = environment.with_name("pba")
    said = run(program, "demo", "--once", "--listen=127.0.0.1:0", f"--data-dir={tmp_path}/data", **alone)
    assert said.startswith("listening on http://127.0.0.1:"), said
    assert (tmp_path / "data/contact-sheet.png").stat().st_size > 10_000


def test_the_client_starts_the_program_of_the_wheel(environment: Path, alone: Dict[str, str]) -> None:
    said = run(
        environment,
        "-c",
        "import pba_client, pba_client._private_plan as plan, sys\n"
        "print(plan.find_program(), pba_client.__file__, pba_client.__version__)\n"
        "with pba_client.serve() as server:\n"
        "    epoch = pba_client.Client(server.url).epoch('shapes', 3, split='test', schedule='none', batch_size=500)\n"
        "    batches = list(epoch)\n"
        "    print(sorted(int(i) for batch in batches for i in batch.index) == list(range(2000)), epoch.metadata.version)\n",
        **alone,
    )
    found, whole = said.splitlines()
    program, package, version = found.split()
    assert Path(program) == environment.with_name("pba")
    assert environment.parent.parent in Path(package).parents, "the client is not that of the wheel"
    assert version == pba_client.__version__
    assert whole == f"True {version}"
