"""The pages of docs/, one for each framework: the program of each runs as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import Server

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
RUN_SECONDS = 300

needs_frameworks = pytest.mark.skipif(
    find_spec("torch") is None, reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"
)


def test_each_framework_has_a_page_and_a_recipe() -> None:
    rows = re.findall(r"^\| \[.*?\]\(docs/(\w+)\.md\).*? \| \[\w+\.py\]\(examples/(train_\w+)\.py\)", README, re.M)
    assert sorted(page for page, _ in rows) == sorted(PAGES)
    for page, recipe in rows:
        assert f"(../examples/{recipe}.py)" in PAGES[page]


@needs_frameworks
@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_program_of_a_page_runs(page: str, server: Server, tmp_path: Path) -> None:
    program = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL))
    assert "http://127.0.0.1:8080" in program
    (tmp_path / "train.py").write_text(program.replace("http://127.0.0.1:8080", server.url))
    command = started(PAGES[page])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert run.returncode == 0, run.stderr[-5000:]
    assert "PbaWarning" not in run.stderr


def started(page: str) -> "list[str]":
    """How a page says that its program is started."""
    [line] = [line for line in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0].splitlines() if " train.py" in line]
    if "torchrun" not in line:
        assert line == "python train.py"
        return [sys.executable, "train.py"]
    options = line.partition("torchrun ")[2].split()
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", *options]
