"""Population Based Augmentation on Ray Tune: a search that outgrows one GPU.

Tune's own ``PopulationBasedTraining`` drives it. Each trial trains a model wherever Ray puts it, and streams its batches
from a PBA server under its own policy; every few epochs the worst quarter copies the best and explores. What Tune logs of
this is imported as a schedule.

    python deploy/ray/pba_tune.py --dataset shapes                  # on this machine, in minutes
    python deploy/ray/pba_tune.py --address auto --url http://pba.example.org:8080 --dataset cifar10 --name mine ...

README.md beside this file says how to run it on a cluster.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple
from urllib.parse import urlsplit

import numpy as np
import ray
import torch
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining, PopulationBasedTrainingReplay
from torch import nn
from torch.nn import functional

import pba_client
from pba_client import Client, RefusedError

# A policy: 15 ops, each twice, with a probability of 0 to 10 tenths and a magnitude of 0 to 9.
LEVELS = 60
LEVEL_MAX = (10, 9)
# The purpose of the server's random numbers for searches (schedules/types/src/rng.rs).
PURPOSE_SEARCH = 4
WORD = 0xFFFFFFFF
# Names of schedules (schedules/types/src/name.rs).
NAME = re.compile(r"(?!none$|identity$|[0-9A-Fa-f]{64}$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAMES_ALLOWED = (
    "1 to 64 letters, digits, '-', '_' and '.', starting with a letter or digit, and not \"none\", \"identity\" or 64 "
    "hexadecimal digits"
)


def words(seed: int, epoch: int, item: int) -> Iterator[int]:
    """The random words of the server's searches at an address: Philox4x32-10 (schedules/types/src/rng.rs)."""
    for block in range(1 << 24):
        key = [seed & WORD, seed >> 32]
        counter = [(PURPOSE_SEARCH << 24) + block, item & WORD, item >> 32, epoch]
        for _ in range(10):
            one, other = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
            counter = [(other >> 32) ^ counter[1] ^ key[0], other & WORD, (one >> 32) ^ counter[3] ^ key[1], one & WORD]
            key = [(key[0] + 0x9E3779B9) & WORD, (key[1] + 0xBB67AE85) & WORD]
        yield from counter


def explored(policy: List[int], resample_probability: float, random_words: Iterator[int]) -> List[int]:
    """The paper's explore, as schedules/src/explore.rs has it: the same words give the same levels."""
    levels = []
    for place, level in enumerate(policy):
        level_max = LEVEL_MAX[place % 2]
        resample, amount, direction = next(random_words), next(random_words), next(random_words)
        if resample < resample_probability * (WORD + 1):
            level = amount * (level_max + 1) >> 32
        elif direction * 2 >> 32 == 0:
            level = min(level + (amount * 4 >> 32), level_max)
        else:
            level = max(level - (amount * 4 >> 32), 0)
        levels.append(level)
    return levels


class Explore:
    """The paper's explore as Tune calls it, with the configuration that was copied and nothing else.

    So the words cannot be those of an epoch and a member, as in a search of the server: they are those of the epoch 0,
    which such a search never explores in, and of the number of the call.
    """

    def __init__(self, seed: int, resample_probability: float) -> None:
        self._seed = seed
        self._resample_probability = resample_probability
        self._calls = 0

    def __call__(self, config: Dict[str, Any]) -> Dict[str, Any]:
        random_words = words(self._seed, 0, self._calls)
        self._calls += 1
        return {**config, "policy": explored(config["policy"], self._resample_probability, random_words)}


def tiny(classes: int) -> nn.Module:
    """Four convolutions, for CPUs."""

    def stage(inputs: int, outputs: int, stride: int, pool: bool) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(nn.MaxPool2d(2) if pool else nn.Identity(), conv, nn.BatchNorm2d(outputs), nn.ReLU())

    stages = [stage(3, 16, 2, False), stage(16, 32, 1, False), stage(32, 64, 1, True), stage(64, 64, 1, True)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


class WideBlock(nn.Module):
    """Two convolutions of a wide residual network, with normalisation and activation before each."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm, self.again = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.short = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.norm(images))
        short = images if self.short is None else self.short(active)
        return short + self.last(functional.relu(self.again(self.conv(active))))


def wide_residual(depth: int, width: int, classes: int) -> nn.Module:
    """WRN-depth-width (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""
    blocks: List[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    inputs = 16
    for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for place in range((depth - 4) // 6):
            blocks.append(WideBlock(inputs, outputs, stride if place == 0 else 1))
            inputs = outputs
    head = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*blocks, *head)


def model_sizes(name: str) -> Optional[Tuple[int, int]]:
    """Depth and width of ``wrn-D-K``; nothing for ``tiny``. A ``ValueError`` for other names."""
    if name == "tiny":
        return None
    family, _, sizes = name.partition("-")
    depth, _, width = sizes.partition("-")
    if family == "wrn" and depth.isdigit() and width.isdigit() and int(width) > 0:
        if int(depth) >= 10 and (int(depth) - 4) % 6 == 0:
            return int(depth), int(width)
    raise ValueError(f"{name!r} is not a model; allowed are tiny and wrn-D-K with D of 10, 16, 22, 28, ..., as in wrn-40-2")


class Member(tune.Trainable):
    """A member of the population. A step is an epoch, so its checkpoint knows no place within one."""

    def setup(self, config: Dict[str, Any], settings: Dict[str, Any]) -> None:
        self._settings = argparse.Namespace(**settings)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._client = Client(self._settings.urls, token=self._settings.token)
        self._read_samples()
        self._begin()

    def _read_samples(self) -> None:
        """Chooses the images to train on and those to score with, the same for all members, and keeps the latter.

        They come in the order of an epoch that `split_seed` shuffles. Where there is no ``val`` split, those to score with
        are the first of ``train``, and are never trained on.
        """
        settings = self._settings
        splits = self._client.dataset(settings.dataset)["splits"]
        own = "val" in splits
        val_images, val_labels, val_indices = self._untouched("val" if own else "train", splits, 0, settings.val_size)
        held_out = 0 if own else len(val_indices)
        _, _, self._train_indices = self._untouched("train", splits, held_out, settings.train_size)
        if len(val_indices) == 0 or len(self._train_indices) < settings.batch_size:
            raise ValueError(
                f"{settings.dataset!r} has {len(val_indices)} images to score with and {len(self._train_indices)} left to "
                f"train on, where a batch has {settings.batch_size}; choose other --val-size, --train-size or --batch-size"
            )
        self._val = [
            (self._normalized(val_images[at : at + 500]), torch.from_numpy(val_labels[at : at + 500]).to(self._device))
            for at in range(0, len(val_labels), 500)
        ]

    def _untouched(
        self, split: str, splits: Dict[str, Any], skip: int, count: int
    ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, labels and indices of so many samples of a shuffled split, not augmented."""
        settings = self._settings
        # Images of different sizes are scaled and cut as for any evaluation.
        base = "identity" if splits[split].get("shape") else "resize:256,center_crop:224"
        stream = self._client.epoch(
            settings.dataset, 0, split=split, seed=settings.split_seed, shuffle=True, skip=skip, batch_size=500, base=base
        )
        with stream as epoch:
            self._mean, self._std = epoch.metadata.mean, epoch.metadata.std
            self._classes = len(epoch.metadata.classes)
            columns: Tuple[List[np.ndarray], ...] = ([], [], [])
            for batch in epoch:
                for column, values in zip(columns, (batch.image, batch.label, batch.index)):
                    column.append(np.array(values[:count]))
                count -= len(columns[2][-1])
                if count <= 0:
                    break
        images, labels, indices = (np.concatenate(column) if column else np.empty(0, np.int64) for column in columns)
        return images, labels, indices

    def _begin(self) -> None:
        settings = self._settings
        # Tune numbers its trials, and their ids end with that.
        self._member = int(self.trial_id.rpartition("_")[2])
        torch.manual_seed(settings.seed + self._member)
        sizes = model_sizes(settings.model)
        model = tiny(self._classes) if sizes is None else wide_residual(*sizes, self._classes)
        self._model = model.to(self._device)
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), settings.lr, momentum=0.9, weight_decay=settings.weight_decay, nesterov=True
        )

    def step(self) -> Dict[str, Any]:
        settings, epoch = self._settings, self.iteration
        steps = len(self._train_indices) // settings.batch_size
        self._model.train()
        loss_sum = 0.0
        for step, (images, labels) in enumerate(self._batches(epoch)):
            progress = (epoch * steps + step) / (settings.epochs * steps)
            for group in self._optimizer.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
            loss = functional.cross_entropy(self._model(images), labels)
            self._optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self._model.parameters(), 5.0)
            self._optimizer.step()
            loss_sum += loss.item()
        policy = ",".join(map(str, self.config["policy"]))
        return {"accuracy": self._accuracy(), "loss": loss_sum / steps, "policy": policy}

    def _batches(self, epoch: int) -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
        """The batches of an epoch under the member's policy: of those that the server streams, the images to train on."""
        settings, size = self._settings, self._settings.batch_size
        stream = self._client.epoch(
            settings.dataset, epoch, policy=self.config["policy"], seed=settings.seed + self._member, batch_size=500
        )
        images, labels = [], []
        with stream as batches:
            for batch in batches:
                wanted = np.isin(batch.index, self._train_indices)
                images.append(batch.image[wanted])
                labels.append(batch.label[wanted])
                if sum(map(len, labels)) < size:
                    continue
                whole, label = np.concatenate(images), np.concatenate(labels)
                end = len(label) // size * size
                for at in range(0, end, size):
                    yield self._normalized(whole[at : at + size]), torch.from_numpy(label[at : at + size]).to(self._device)
                images, labels = [whole[end:]], [label[end:]]

    def _normalized(self, images: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (self._mean, self._std))
        return (pixels - mean) / std

    def _accuracy(self) -> float:
        self._model.eval()
        with torch.no_grad():
            right = sum(int((self._model(images).argmax(1) == labels).sum()) for images, labels in self._val)
        return right / sum(len(labels) for _, labels in self._val)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state = {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}
        torch.save(state, Path(checkpoint_dir, "member.pt"))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]
        state = torch.load(Path(checkpoint_dir, "member.pt"), map_location=self._device)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])

    def reset_config(self, new_config: Dict[str, Any]) -> bool:
        """Becomes another member, in the same process; if that has trained before, its checkpoint follows."""
        self._begin()
        return True


class Population(PopulationBasedTraining):
    """Tune's own, whose logs have the right epoch.

    Tune takes over a result after the scheduler has seen it. So a trial whose result ends a round, and which others then
    copy, would be logged as it was an epoch before.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Dict[str, Any]) -> str:
        trial.run_metadata.last_result = result
        return super().on_trial_result(tune_controller, trial, result)


class Record(tune.Callback):
    """Appends each result to a file. Tune's own `result.json` loses some when a trial pauses and goes on."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_trial_result(self, iteration: int, trials: List[Any], trial: Any, result: Dict[str, Any], **_: Any) -> None:
        told = {"trial": trial.trial_id, "epoch": result["training_iteration"]}
        told.update((name, result[name]) for name in ("accuracy", "loss", "policy"))
        with self._file.open("a") as file:
            file.write(json.dumps(told) + "\n")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--url", help="server, as the trials reach it; those of PBA_SERVER by default, or else http://127.0.0.1:8080")
    add("--dataset", default="shapes", help="dataset that the server has")
    add("--address", help="address of a Ray cluster, `auto` on one of its machines; none starts Ray here")
    add("--population", type=int, default=4, help="members, each a trial; the paper's are 16")
    add("--epochs", type=int, default=12, help="epochs of each; the paper's are 200 (SVHN: 160)")
    add("--interval", type=int, default=3, help="epochs between exploits; the paper's are 3")
    add("--quantile", type=float, default=0.25, help="share of members that is replaced, the paper's")
    add("--resample-probability", type=float, default=0.2, help="of a level, when it is explored; the paper's")
    add("--model", default="tiny", help="tiny or wrn-D-K; the paper's is wrn-40-2")
    add("--train-size", type=int, default=2000, help="images to train on; the paper's are 4000 (SVHN: 1000)")
    add("--val-size", type=int, default=1000, help="images to score with; the paper's are 46000 (SVHN: 7325)")
    add("--batch-size", type=int, default=64, help="images of a step; the paper's are 128")
    add("--lr", type=float, default=0.1, help="learning rate, decayed as a cosine; the paper's")
    add("--weight-decay", type=float, default=5e-4, help="the paper's; SVHN: 5e-3")
    add("--seed", type=int, default=0, help="of weights, batches and explore")
    add("--split-seed", type=int, default=0, help="chooses the images to train on and to score with")
    add("--cpus", type=float, default=1.0, help="CPUs of each trial")
    add("--gpus", type=float, default=0.0, help="GPUs of each trial; 0.25 lets four share one")
    add("--storage", default="ray-results", help="folder, or URL, where Tune keeps logs and checkpoints")
    add("--experiment", default="pba-search", help="name of Tune's folder in there, which must not exist yet")
    add("--name", help="also import the schedule of the best trial, under this name; needs `pba`, or PBA_BIN")
    add("--replay", metavar="FILE", help="train one model along a policy log, as `pba schedule export --as ray-tune` writes it")
    add("--record", type=Path, metavar="FILE", help="file to append each result to, a JSON line for each epoch of each trial")
    args = parser.parse_args()
    for name in ("population", "epochs", "interval", "train_size", "val_size", "batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}; allowed are 1 and more")
    if not args.replay and args.population < 2:
        parser.error("--population is 1; a population has 2 members or more, of which one copies the other")
    if not 0 <= args.quantile <= 0.5:
        parser.error(f"--quantile is {args.quantile}; allowed are 0 to 0.5")
    if not 0 <= args.resample_probability <= 1:
        parser.error(f"--resample-probability is {args.resample_probability}; allowed are 0 to 1")
    if not 0 <= args.seed < 1 << 63:
        parser.error(f"--seed is {args.seed}; allowed are 0 to 2^63 - 1")
    if args.replay and args.name:
        parser.error("--replay trains along a schedule that there is already, so there is none to import as --name")
    try:
        model_sizes(args.model)
    except ValueError as error:
        parser.error(f"--model {error}")
    try:
        args.urls = Client(args.url).urls
    except ValueError as error:
        parser.error(str(error) if args.url is None else f"--url: {error}")
    if args.replay:
        check_replay(args, parser)
    if args.name is not None:
        check_name(args, parser)
    folder = Path(args.storage, args.experiment)
    if "://" not in args.storage and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        # Tune would append this run's logs to those of another.
        parser.error(f"--experiment {args.experiment}: {folder.resolve()} exists already; choose another --experiment")
    return args


def check_replay(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses what is no policy log, and one that ends later than the run."""
    try:
        last = last_change(args.replay)
    except (OSError, ValueError, LookupError, TypeError) as error:
        parser.error(f"--replay {args.replay} is not a log as `pba schedule export --as ray-tune` writes it: {error!r}")
    if last >= args.epochs:
        parser.error(
            f"--epochs is {args.epochs}, and {args.replay} changes its policy for the last time after {last} epochs; "
            f"allowed are {last + 1} and more"
        )


def last_change(log: str) -> int:
    """After how many epochs a replay of a log changes its policy for the last time; 0 if it never does.

    As Tune reads it: the lines that lead to the last one, and at most one change after each epoch.
    """
    chain: List[List[Any]] = []
    for line in reversed(Path(log).expanduser().read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        if chain and row[0] != chain[-1][1]:
            break
        chain.append(row)
    chain.reverse()
    at = last = 0
    policy = chain[0][4]["policy"]
    for _, _, _, epoch, _, config in chain:
        at = max(epoch, at + 1)
        if config["policy"] != policy:
            policy, last = config["policy"], at
    return last


def check_name(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses a name under which nothing could be imported after the search."""
    if not NAME.fullmatch(args.name):
        parser.error(f"--name {args.name!r}: allowed are {NAMES_ALLOWED}")
    if "://" in args.storage:
        parser.error(f"--name needs Tune's logs in a folder of this machine, and --storage is {args.storage}")
    if program() is None:
        missing = "PBA_BIN, which is not a program" if os.environ.get("PBA_BIN") else "`pba`, which is not on the PATH"
        parser.error(f"--name needs {missing}; without --name, the command that imports the schedule is printed")


def program() -> Optional[str]:
    """The program `pba`, if there is one."""
    return shutil.which(os.environ.get("PBA_BIN") or "pba")


def connect(address: Optional[str]) -> None:
    """Starts Ray here, or joins a cluster. Its machines get the client from here, unless a submitted job brings its own."""
    if address is None:
        ray.init(include_dashboard=False)
    elif "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        ray.init(address=address)
    else:
        ray.init(address=address, runtime_env={"py_modules": [pba_client]})


def tuner(args: argparse.Namespace) -> tune.Tuner:
    names = "urls dataset epochs model train_size val_size batch_size lr weight_decay seed split_seed".split()
    # Not through Ray's runtime environment, which its dashboard shows.
    settings = {name: getattr(args, name) for name in names}
    settings["token"] = os.environ.get("PBA_TOKEN")
    member = tune.with_resources(tune.with_parameters(Member, settings=settings), {"cpu": args.cpus, "gpu": args.gpus})
    if args.replay:
        scheduler: Any = PopulationBasedTrainingReplay(args.replay)
    else:
        scheduler = Population(
            time_attr="training_iteration",
            perturbation_interval=args.interval,
            quantile_fraction=args.quantile,
            custom_explore_fn=Explore(args.seed, args.resample_probability),
            # All members train an interval before any copies another, as in the paper. Otherwise Tune may log an epoch
            # that the checkpoint that was copied had not reached.
            synch=True,
        )
    storage = args.storage if "://" in args.storage else str(Path(args.storage).resolve())
    return tune.Tuner(
        member,
        # No augmentation at first, as in the paper. A replay brings its own policies.
        param_space={} if args.replay else {"policy": [0] * LEVELS},
        tune_config=tune.TuneConfig(
            metric=None if args.replay else "accuracy",
            mode=None if args.replay else "max",
            scheduler=scheduler,
            num_samples=1 if args.replay else args.population,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=args.experiment,
            storage_path=storage,
            stop={"training_iteration": args.epochs},
            # Of four, a trial that pauses or copies another finds the one that it needs. A replay saves at each change;
            # where that is also an epoch to save in, it would never go on.
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0 if args.replay else args.interval, num_to_keep=4
            ),
            failure_config=tune.FailureConfig(max_failures=2),
            callbacks=[Record(args.record.resolve())] if args.record else None,
        ),
    )


def tell(args: argparse.Namespace, results: tune.ResultGrid) -> int:
    """Says what came of a search, and imports it if that was asked for; the exit status."""
    for result in results:
        if result.error is not None:
            print(f"a trial failed: {result.error}", file=sys.stderr)
        elif result.metrics["training_iteration"] != args.epochs:
            print(f"a trial ended after {result.metrics['training_iteration']} of {args.epochs} epochs", file=sys.stderr)
    if any(result.error is not None or result.metrics["training_iteration"] != args.epochs for result in results):
        return 1
    if args.replay:
        print(f"accuracy {results[0].metrics['accuracy']:.4f} after {args.epochs} epochs along {args.replay}")
        return 0
    best = results.get_best_result("accuracy", "max", "last")
    trial = best.metrics["trial_id"]
    print(f"best trial: {trial}, accuracy {best.metrics['accuracy']:.4f} after {args.epochs} epochs")
    print(f"Tune's logs: {results.experiment_path}")
    log = f"{results.experiment_path}/pbt_policy_{trial}.txt"
    command = ["pba", "schedule", "import", log, "--epochs", str(args.epochs)]
    # Several are those of PBA_SERVER, which `pba` reads as well.
    command += ["--server", *args.urls] if len(args.urls) == 1 else []
    if "://" in results.experiment_path:
        print(f"copy {log} to a machine with `pba`, and import that; a trial that copied no other has no such file")
        return 0
    if not Path(log).exists():
        # It copied no other, so Tune has no log of it. This is that of a policy that stays as it is.
        config = {"policy": list(best.config["policy"])}
        tag = str(int(trial.rpartition("_")[2]))
        Path(log).write_text(json.dumps([tag, tag, args.epochs - 1, args.epochs - 1, config, config]) + "\n")
        print(f"the best trial copied no other: its policy is the one that it began with, and {log} says so")
    if args.name is None:
        print("import its schedule with\n    " + shlex.join([*command, "--name", "NAME"]))
        return 0
    command += ["--name", args.name]
    pba = program()
    if pba is None:
        print("there is no `pba` any more; where there is one, run\n    " + shlex.join(command), file=sys.stderr)
        return 1
    print("importing its schedule:\n    " + shlex.join(command), flush=True)
    return subprocess.run([pba, *command[1:]]).returncode


def exists(client: Client, name: str) -> bool:
    """Whether the server has a schedule of this name."""
    try:
        client.schedule(name)
        return True
    except RefusedError as error:
        if error.status != 404:
            raise
        return False


def main() -> int:
    args = options()
    # What is wrong is better said before anything is started: an address, a dataset, a name that is taken.
    client = Client(args.urls)
    client.dataset(args.dataset)
    if args.name is not None and exists(client, args.name):
        print(f"--name {args.name}: there is a schedule of this name already; choose another --name", file=sys.stderr)
        return 2
    for url in args.urls if args.address else []:
        if url.startswith("unix:") or urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1"):
            print(f"{url} is this machine to each trial: on a cluster of several, --url has to be one that all reach")
    # Tune chooses with it which of the best is copied.
    random.seed(args.seed)
    connect(args.address)
    return tell(args, tuner(args).fit())


if __name__ == "__main__":
    sys.exit(main())
