"""The README's examples run, and the example trainer does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Home, Server, http_get

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(
    server: Server, number: int, home: Home, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = BLOCKS[number]
    if "torch" in code:
        pytest.importorskip("torch", reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only")
    monkeypatch.chdir(tmp_path)
    if "epoch.arrows" in code:
        query = "/v1/datasets/shapes/epochs/3/batches?schedule=cifar10-pba"
        Path("epoch.arrows").write_bytes(http_get(server.url + query))
    assert any(place in code for place in ("http://127.0.0.1:8080", "epoch.arrows", "/data/cifar10"))
    exec(code.replace("http://127.0.0.1:8080", server.url).replace("/data/cifar10", str(pictures)), {})


def test_the_example_trainer(server: Server, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.json"
    command = [sys.executable, str(ROOT / "examples" / "train.py"), "--url", server.url]
    command += ["--epochs", "2", "--checkpoint", str(checkpoint)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(re.findall(r"epoch \d: 10,000 images in .* images/s; waited", output)) == 2
    assert json.loads(checkpoint.read_text())["samples"] == 10_000
