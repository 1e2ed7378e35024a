"""What frameworks do around an EpochDataset: each batch is counted, and what would read wrong ones is refused or told of.

Each test runs a script in processes of its own, as frameworks change what they are imported into.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import List

import pytest
from conftest import Server

RUN_SECONDS = 300
SAMPLES = 10_000

pytestmark = pytest.mark.skipif(
    find_spec("torch") is None, reason="PyTorch is installed with PBA_TEST_FRAMEWORKS=1 only"
)


def run(script: str, folder: Path, *arguments: str, ranks: int = 0) -> subprocess.CompletedProcess:  # type: ignore[type-arg]
    folder = Path(tempfile.mkdtemp(dir=folder))
    (folder / "script.py").write_text(script)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [sys.executable, *(torchrun if ranks else []), "script.py", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )


def told(output: subprocess.CompletedProcess) -> List[str]:  # type: ignore[type-arg]
    """The sentences that our warnings begin with, of a script that has ended well."""
    assert output.returncode == 0, output.stderr
    known = ("is at epoch", "goes on in the middle", "was left after", "are skipped after")
    return [line for line in output.stderr.splitlines() if any(words in line for words in known)]


def test_accelerate_may_not_share_out_once_more(server: Server, tmp_path: Path) -> None:
    """Its prepare() would give each rank a part of its part."""
    ways = ["shard", "dispatch", "shard+workers", "dispatch+workers"]
    output = run(PREPARED, tmp_path, server.url, *ways, ranks=2)
    assert output.stdout.count("once more, and most of each epoch would never be seen") == 2 * len(ways), output


def test_each_step_of_accelerate_is_counted(server: Server, tmp_path: Path) -> None:
    """In one process prepare() does no harm: it holds a batch back, which no state counts, and sets epochs by a count of its
    own, which changes nothing."""
    ways = ["shard", "dispatch", "default", "default+workers", "default+stateful", "default+stateful+workers"]
    output = run(PREPARED, tmp_path, server.url, *ways)
    assert told(output) == [] and output.stdout.splitlines() == [f"{way}: counted" for way in ways], output.stdout


PREPARED = """
import sys
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from pba_client import PbaError
from pba_client.torch import EpochDataset

class Extended(EpochDataset):
    def set_epoch(self, epoch, start=None):
        super().set_epoch(epoch, start)

def read(options):
    dataset = Extended(sys.argv[1], "shapes", batch_size=1000)
    is_stateful = "stateful" in options
    configuration = DataLoaderConfiguration(
        dispatch_batches=None if "default" in options else "dispatch" in options, use_stateful_dataloader=is_stateful
    )
    accelerator = Accelerator(cpu=True, dataloader_config=configuration)
    loader = accelerator.prepare(DataLoader(dataset, batch_size=None, num_workers=2 if "workers" in options else 0))
    dataset.set_epoch(3)
    for epoch in (3, 4):
        assert dataset.epoch == epoch
        for taken, _ in enumerate(loader, 1):
            states = [dataset.state_dict()]
            if is_stateful:
                states.append(loader.state_dict()["pba_client"])
            for state in states:
                assert state["epoch"] * 10_000 + state["samples"] == epoch * 10_000 + taken * 1000, (taken, states)
        assert taken == 10

for way in sys.argv[2:]:
    try:
        read(way.split("+"))
        print(f"{way}: counted")
    except PbaError as error:
        print(f"{way}: {error}")
"""


def test_each_step_of_lightning_is_counted(server: Server, tmp_path: Path) -> None:
    """It asks for an iterator before it knows how many batches there are, and looks ahead where it never comes to know."""
    output = run(LIGHTNING + COUNTED, tmp_path, server.url)
    assert told(output) == [] and output.stdout.split() == ["counted"] * 3, output.stdout


# A module whose step does next to nothing, and a data module.
LIGHTNING = """
import sys
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from pba_client.torch import EpochDataset

url, *arguments = sys.argv[1:]

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.read = []

    def training_step(self, batch, number):
        batch = batch["a"] if "a" in batch else batch
        self.read.append((self.current_epoch, int(batch["index"][0])))
        return self.weight * batch["image"].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Batches(lightning.LightningDataModule):
    def __init__(self, dataset, loader=DataLoader):
        super().__init__()
        self.dataset, self.loader = dataset, loader

    def train_dataloader(self):
        return self.loader(self.dataset, batch_size=None)

    def state_dict(self):
        return self.dataset.state_dict()

    def load_state_dict(self, state):
        self.dataset.load_state_dict(state)

def dataset(size=1000, **options):
    return EpochDataset(url, "shapes", batch_size=size, as_dict=True, **options)

def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(**quiet, **{"enable_checkpointing": "callbacks" in options, **options})
"""
COUNTED = """
class Counting(Module):
    def __init__(self, dataset):
        super().__init__()
        self.dataset, self.found, self.expected = dataset, [], []

    def training_step(self, batch, number):
        state = self.dataset.state_dict()
        self.found.append((state["epoch"], state["samples"]))
        is_last = number + 1 == len(self.dataset)
        self.expected.append((self.current_epoch + 1, 0) if is_last else (self.current_epoch, (number + 1) * 3000))
        return super().training_step(batch, number)

for workers, drop_last in ((0, True), (0, False), (2, True)):
    data = dataset(3000, drop_last=drop_last)
    module = Counting(data)
    trainer(max_epochs=2).fit(module, DataLoader(data, batch_size=None, num_workers=workers))
    assert len(module.found) == 2 * len(data) == 2 * (3 + (not drop_last))
    assert module.found == module.expected, (module.found, module.expected)
    print("counted")
"""


def test_lightning_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    """From checkpoints in the middle of an epoch, at its end, and after a run, with no warning."""
    saved = ["step 4", "step 10", "step 13", "epoch 1", "epoch 2", "fit 1", "fit 2"]
    output = run(LIGHTNING + GOING_ON, tmp_path, server.url, *saved)
    assert told(output) == [] and output.stdout.splitlines() == [f"{kind}: same" for kind in saved], output.stdout


GOING_ON = """
whole = Module()
trainer(max_epochs=3).fit(whole, Batches(dataset()))
for saved in arguments:
    kind, number = saved.split()[0], int(saved.split()[1])
    before = Module()
    if kind == "fit":
        first = trainer(max_epochs=number)
        first.fit(before, Batches(dataset()))
        first.save_checkpoint(saved + ".ckpt")
    else:
        often = {"every_n_train_steps": number} if kind == "step" else {"every_n_epochs": number}
        keep = ModelCheckpoint(".", filename=saved, save_top_k=1, **often)
        steps = 10 * number if kind == "epoch" else number
        trainer(max_steps=steps, callbacks=[keep]).fit(before, Batches(dataset()))
    after = Module()
    trainer(max_epochs=3).fit(after, Batches(dataset()), ckpt_path=saved + ".ckpt")
    assert before.read + after.read == whole.read, (before.read, after.read)
    print(saved + ": same")
"""


@pytest.mark.parametrize(
    ("saved", "warning"),
    [
        ("epoch", "Lightning is at epoch 1, and its batches are those of epoch 0"),
        ("step", "Lightning goes on in the middle of epoch 0, and its batches are those of the beginning"),
    ],
)
def test_lightning_without_the_state_of_the_dataset_is_told_of(
    server: Server, tmp_path: Path, saved: str, warning: str
) -> None:
    """In the first loop already."""
    output = run(LIGHTNING + FORGOTTEN, tmp_path, server.url, saved)
    assert warning in told(output)[0], output.stderr


FORGOTTEN = """
class Forgetting(Batches):
    state_dict = lightning.LightningDataModule.state_dict

often = {"every_n_epochs": 1} if arguments[0] == "epoch" else {"every_n_train_steps": 4}
keep = ModelCheckpoint(".", filename="saved", **often)
trainer(max_steps=10 if arguments[0] == "epoch" else 4, callbacks=[keep]).fit(Module(), Forgetting(dataset()))
trainer(max_epochs=2).fit(Module(), Forgetting(dataset()), ckpt_path="saved.ckpt")
"""


def test_a_stateful_loader_that_lightning_does_not_restore_is_told_of(server: Server, tmp_path: Path) -> None:
    """It restores loaders in the middle of an epoch only."""
    forgotten = FORGOTTEN.replace("Forgetting(dataset())", "StatefulDataLoader(dataset(), batch_size=None)")
    assert "is at epoch 1, and its batches are those of epoch 0" in told(run(LIGHTNING + forgotten, tmp_path, server.url, "epoch"))[0]
    assert told(run(LIGHTNING + forgotten, tmp_path, server.url, "step")) == []


def test_several_loaders_of_lightning(server: Server, tmp_path: Path) -> None:
    """The shorter one begins again, and is at another epoch then; a loader to validate with is at epochs of its own."""
    output = run(LIGHTNING + SEVERAL, tmp_path, server.url)
    assert told(output) == [] and output.stdout.split() == ["same"], output.stderr


SEVERAL = """
class Validated(Module):
    def validation_step(self, batch, number):
        pass

loaders = {"a": DataLoader(dataset(), batch_size=None), "b": DataLoader(dataset(5000), batch_size=None)}
trainer(max_epochs=2).fit(Module(), loaders)
validation = DataLoader(dataset(), batch_size=None)
trainer(max_epochs=2, num_sanity_val_steps=0, val_check_interval=5).fit(
    Validated(), DataLoader(dataset(), batch_size=None), validation
)

# A step that asks for its batches itself, and loaders that Lightning looks ahead in, resumed at the end of an epoch.
class Asking(Module):
    def training_step(self, dataloader_iter):
        batch, number, _ = next(dataloader_iter)
        return super().training_step(batch, number)

class Unsized(DataLoader):
    def __len__(self):
        raise TypeError("unknown")

trainer(max_epochs=2).fit(Asking(), DataLoader(dataset(), batch_size=None))
whole, before, after = Module(), Module(), Module()
trainer(max_epochs=2).fit(whole, Batches(dataset(), Unsized))
keep = ModelCheckpoint(".", filename="saved", every_n_train_steps=10)
trainer(max_steps=10, callbacks=[keep]).fit(before, Batches(dataset(), Unsized))
trainer(max_epochs=2).fit(after, Batches(dataset(), Unsized), ckpt_path="saved.ckpt")
assert before.read + after.read == whole.read, (before.read, after.read)
# Workers that begin before Lightning loads a state would begin elsewhere.
stateful = lambda: StatefulDataLoader(dataset(), batch_size=None, num_workers=1)
before, after = Module(), Module()
keep = ModelCheckpoint(".", filename="stateful", every_n_train_steps=4)
trainer(max_steps=4, callbacks=[keep]).fit(before, stateful())
trainer(max_epochs=2).fit(after, stateful(), ckpt_path="stateful.ckpt")
assert before.read + after.read == whole.read, (before.read, after.read)
print("same")
"""


def test_transformers_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    """Also where gradients of 3 batches are accumulated."""
    output = run(TRANSFORMERS, tmp_path, server.url, "1", "3")
    assert told(output) == [] and output.stdout.split().count("same") == 2, output.stdout


def test_transformers_without_the_state_of_the_dataset_is_told_of(server: Server, tmp_path: Path) -> None:
    output = run(TRANSFORMERS, tmp_path, server.url, "forgotten")
    assert "Transformers' Trainer goes on in the middle of epoch 0, and its batches" in told(output)[0], output.stderr


TRANSFORMERS = """
import json
import sys
from pathlib import Path
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from pba_client.torch import EpochDataset

url, *ways = sys.argv[1:]

class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.read = []

    def forward(self, image, index, label):
        self.read.append(int(index[0]))
        return {"loss": (self.weight * image.float().mean()).sum()}

class PbaTrainer(Trainer):
    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=None)

class Save(TrainerCallback):
    def on_save(self, args, state, control, **_):
        Path(args.output_dir, f"checkpoint-{state.global_step}", "position.json").write_text(json.dumps(dataset.state_dict()))

def fit(folder, way, resume=None, **options):
    global dataset
    dataset = EpochDataset(url, "shapes", batch_size=1000, as_dict=True)
    if resume and way != "forgotten":
        dataset.load_state_dict(json.loads(Path(resume, "position.json").read_text()))
    arguments = TrainingArguments(
        output_dir=folder, num_train_epochs=3, ignore_data_skip=True, remove_unused_columns=False, report_to=[],
        gradient_accumulation_steps=3 if way == "3" else 1, use_cpu=True, disable_tqdm=True, **options,
    )
    module = Module()
    PbaTrainer(module, arguments, train_dataset=dataset, callbacks=[Save()]).train(resume_from_checkpoint=resume)
    return module.read

for way in ways:
    whole = fit("whole" + way, way, save_strategy="no")
    before = fit("before" + way, way, save_steps=2, max_steps=2)
    after = fit("after" + way, way, f"before{way}/checkpoint-2", save_strategy="no")
    assert way == "forgotten" or before + after == whole, (before, after)
    print("same")
"""
