"""The recipes of examples/, each killed in the middle of an epoch and resumed: what it reads, and what it learns, is what
a run reads and learns that nobody disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest
from conftest import Server

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# In every process of a recipe: frameworks show warnings in ways of their own.
WARNINGS_ARE_ERRORS = Path(__file__).parent / "warnings_are_errors"
RUN_SECONDS = 300
EPOCHS = 2
# Steps between checkpoints; those of Ray take seconds.
SAVE_EVERY, SAVE_EVERY_OF_RAY = 7, 18
# In an epoch of 50 batches.
KILL_AFTER = 40

pytestmark = pytest.mark.skipif(
    find_spec("torch") is None, reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"
)


class Data:
    """Real pictures where they are at hand, otherwise those that are built in."""

    def __init__(self, server: Server, name: str, samples: int) -> None:
        self.url, self.name, self.samples = server.url, name, samples

    def batch_size(self, ranks: int = 1) -> int:
        return self.samples // 50 // ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    real = os.environ.get("PBA_TEST_DATA")
    options = ["--dataset", f"cifar10={real}"] if real else []
    server = Server(tmp_path_factory.mktemp("recipes"), *options)
    yield Data(server, "cifar10", 50_000) if real else Data(server, "shapes", 10_000)
    server.stop()


class Run:
    """One run of a recipe."""

    def __init__(self, command: List[str], script: str, folder: Path, data: Data, *options: str) -> None:
        self.record = folder / "record.jsonl"
        self._log = folder / "log"
        arguments = ["--url", data.url, "--dataset", data.name, "--epochs", str(EPOCHS)]
        arguments += ["--record", str(self.record), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        paths = [str(EXAMPLES), str(WARNINGS_ARE_ERRORS), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, str(EXAMPLES / script), *arguments],
                stdout=log,
                stderr=log,
                env=environment,
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def lines(self) -> List[dict]:
        if not self.record.exists():
            return []
        # A line that is being written has no end yet.
        return [json.loads(line) for line in self.record.read_text().splitlines(True) if line.endswith("\n")]

    def by_rank(self) -> Dict[int, List[dict]]:
        ranks = defaultdict(list)
        for line in self.lines():
            ranks[line["rank"]].append(line)
        return ranks

    def finish(self) -> str:
        """Waits for its end; the digest of its weights."""
        try:
            assert self._process.wait(RUN_SECONDS) == 0, self.log()[-5000:]
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.weights

    @property
    def weights(self) -> str:
        [digest] = [line.split()[-1] for line in self.log().splitlines() if line.startswith("weights ")]
        return digest

    def kill_in(self, epoch: int, batches: int) -> None:
        """Kills all of its processes in the middle of what they do, after so many batches of all ranks in an epoch."""
        end = time.monotonic() + RUN_SECONDS
        while not self.record.exists() or self.record.read_bytes().count(b'{"epoch": %d,' % epoch) < batches:
            assert self._process.poll() is None and time.monotonic() < end, self.log()[-5000:]
            time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        # torchrun and Ray give their workers sessions of their own.
        for pid in [*descendants(self._process.pid), self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def descendants(pid: int) -> List[int]:
    """The processes that a process has started, and those that these have."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: state and parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                child = int(path.parent.name)
                found += [*descendants(child), child]
    return found


def torchrun(ranks: int) -> List[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]


PLAIN = [sys.executable]
# Of each: its ranks, and its checkpoint.
RECIPES = {
    "train_plain.py": (1, "state.pt"),
    "train_ddp.py": (2, "state.pt"),
    "train_stateful.py": (1, "state.pt"),
    "train_lightning.py": (2, "checkpoints"),
    "train_accelerate.py": (2, "checkpoints"),
    "train_ray.py": (2, "checkpoints"),
    "train_jax.py": (1, "state.pkl"),
    "train_transformers.py": (1, "checkpoints"),
}
# Before and after: others go on where these were killed.
OTHER_RANKS = [
    ("train_ddp.py", 2, 1),
    ("train_ddp.py", 1, 3),
    ("train_accelerate.py", 2, 1),
    ("train_lightning.py", 2, 1),
    ("train_ray.py", 2, 1),
    ("train_transformers.py", 2, 1),
]


class Runs:
    """Runs of recipes with so many ranks, whose batches are together those of one. Tests share them."""

    def __init__(self, data: Data, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._whole: Dict[Tuple[str, int], Run] = {}
        self._killed: Dict[Tuple[str, int], Tuple[Path, Run, Run]] = {}

    def start(self, script: str, ranks: int, checkpoint: Path) -> Run:
        command, options = PLAIN, ["--save-every", str(save_every(script)), "--checkpoint", str(checkpoint)]
        options += ["--batch-size", str(self._data.batch_size(ranks))]
        if script in ("train_lightning.py", "train_ray.py"):
            options += ["--ranks", str(ranks)]
        elif ranks > 1 or script in ("train_ddp.py", "train_accelerate.py"):
            command = torchrun(ranks)
        if script == "train_stateful.py":
            options += ["--workers", "2"]
        return Run(command, script, self.folder(), self._data, *options)

    def folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))

    def whole(self, script: str, ranks: int) -> Run:
        """One that nobody disturbed."""
        key = (script, ranks)
        if key not in self._whole:
            run = self.start(script, ranks, self.folder() / RECIPES[script][1])
            run.finish()
            self._whole[key] = run
        return self._whole[key]

    def killed(self, script: str, ranks: int) -> Tuple[Path, Run, Run]:
        """One that was killed in its first epoch, went on, and was killed in its second one; a copy of its checkpoint."""
        key = (script, ranks)
        if key not in self._killed:
            checkpoint = self.folder() / RECIPES[script][1]
            first = self.start(script, ranks, checkpoint)
            first.kill_in(0, KILL_AFTER * ranks)
            second = self.start(script, ranks, checkpoint)
            second.kill_in(1, KILL_AFTER * ranks)
            self._killed[key] = checkpoint, first, second
        kept, first, second = self._killed[key]
        copied = self.folder() / kept.name
        shutil.copytree(kept, copied) if kept.is_dir() else shutil.copy(kept, copied)
        return copied, first, second


@pytest.fixture(scope="module")
def runs(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(data, tmp_path_factory.mktemp("runs"))


def save_every(script: str) -> int:
    return SAVE_EVERY_OF_RAY if script == "train_ray.py" else SAVE_EVERY


def test_each_recipe_is_run() -> None:
    assert set(RECIPES) == {path.name for path in EXAMPLES.glob("train_*.py")}


@pytest.mark.parametrize("script", RECIPES)
def test_killed_and_resumed(script: str, data: Data, runs: Runs) -> None:
    ranks, every = RECIPES[script][0], save_every(script)
    undisturbed = runs.whole(script, ranks)
    checkpoint, first, second = runs.killed(script, ranks)
    third = runs.start(script, ranks, checkpoint)
    assert third.finish() == undisturbed.weights
    whole = undisturbed.by_rank()
    steps = EPOCHS * 50
    assert set(whole) == set(range(ranks)) and all(len(lines) == steps for lines in whole.values())
    # Where each of the three began and ended, by rank.
    begun = dict.fromkeys(range(ranks), 0)
    for run, epoch in ((first, 0), (second, 1)):
        read, following = run.by_rank(), (second if run is first else third).by_rank()
        assert set(read) == set(range(ranks))
        for rank in range(ranks):
            ended = begun[rank] + len(read[rank])
            assert read[rank] == whole[rank][begun[rank] : ended]
            # The next one went on at the last checkpoint, in this epoch.
            [begun[rank]] = [at for at in range(steps) if whole[rank][at] == following[rank][0]]
            assert 50 * epoch < begun[rank] <= ended < begun[rank] + 3 * every and begun[rank] % every == 0
    for rank, lines in third.by_rank().items():
        assert lines == whole[rank][begun[rank] :]
    # Each sample once in each epoch, over all ranks.
    for epoch in range(EPOCHS):
        read = pixels(line for lines in whole.values() for line in lines if line["epoch"] == epoch)
        assert len(read) == data.samples


@pytest.mark.parametrize(("script", "ranks", "others"), OTHER_RANKS)
def test_resumed_with_other_ranks(script: str, ranks: int, others: int, data: Data, runs: Runs) -> None:
    # Those that normalise on the CPU record what is normalised.
    plain = "train_plain.py" if script not in ("train_lightning.py", "train_transformers.py") else script
    whole = runs.whole(plain, 1)
    checkpoint, _, killed = runs.killed(script, ranks)
    positions = saved(checkpoint)
    resumed = runs.start(script, others, checkpoint)
    resumed.finish()
    expected = pixels(line for line in whole.lines() if line["epoch"] == 1)
    assert len(expected) == data.samples
    # What was read up to the checkpoint, and what was read after it. Ray may not have come to know the last one.
    after = pixels(line for line in resumed.lines() if line["epoch"] == 1)
    samples = data.samples - len(after) if script == "train_ray.py" else positions[-1]
    assert samples in positions
    each = samples // data.batch_size(ranks) // ranks
    second = {rank: [line for line in lines if line["epoch"] == 1] for rank, lines in killed.by_rank().items()}
    before = pixels(line for lines in second.values() for line in lines[:each])
    assert set(resumed.by_rank()) == set(range(others)) and len(before) == samples
    assert not set(before) & set(after)
    left = set(expected) - set(before) - set(after)
    # At most the last batch of each rank, which all have to fill.
    assert len(left) < data.batch_size(others) * others
    assert {**before, **after} == {index: value for index, value in expected.items() if index not in left}


def pixels(lines) -> Dict[int, int]:  # type: ignore[no-untyped-def]
    """The checksum of each sample's pixels; each sample once."""
    pairs: List[Tuple[int, int]] = [pair for line in lines for pair in zip(line["index"], line["pixels"])]
    found = dict(pairs)
    assert len(found) == len(pairs)
    return found


def saved(checkpoint: Path) -> List[int]:
    """The samples of the second epoch that the checkpoints of a recipe are after, those that are kept."""
    import torch

    if checkpoint.is_file():
        states = [torch.load(checkpoint)["data"]]
    elif (checkpoint / "last.ckpt").exists():
        states = [torch.load(checkpoint / "last.ckpt", weights_only=False)["Batches"]]
    elif (checkpoint / "latest").exists():
        epoch, samples = (checkpoint / "latest").read_text().split("-")
        states = [{"epoch": int(epoch), "samples": int(samples)}]
    elif (checkpoint / "pba").exists():
        states = [torch.load(path)["data"] for path in sorted(checkpoint.glob("pba/checkpoint_*/state.pt"))]
    else:
        last = max(checkpoint.glob("checkpoint-*/position.json"), key=lambda path: int(path.parent.name.split("-")[1]))
        states = [json.loads(last.read_text())]
    return [state["samples"] for state in states if state["epoch"] == 1]
