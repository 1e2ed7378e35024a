#!/usr/bin/env python3
"""Does a learned schedule help? Searches once, then trains from scratch with it and without.

    python3 benches/learns/run.py [--trainer target/release/pba-trainer] [--work DIR]

`tiny` is trained on a small part of the built-in dataset, so that it overfits, with
  base       base augmentation only
  learned    the schedule that a search on the same dataset learned
  shuffled   its epochs in a random order, another one for each seed
  random     one policy of uniformly random levels throughout, another one for each seed
for several seeds. A seed fixes the training images, the initial weights and every draw. The
search has a seed of its own, and sees nothing of the test split. Results are kept in the work
folder, so that an interrupted run goes on. Prints a table as Markdown.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import statistics
import subprocess

OPS = ["Rotate", "TranslateX", "TranslateY", "Brightness", "Color", "Invert", "Sharpness", "Posterize",
       "ShearX", "Solarize", "ShearY", "Equalize", "AutoContrast", "Cutout", "Contrast"]
CONDITIONS = ["base", "learned", "shuffled", "random"]


def trainer(arguments, command, spec, work):
    """Runs pba-trainer with a spec on its standard input; gives its events."""
    run = subprocess.run(
        [arguments.trainer, command, "--spec", "-", "--dataset", arguments.dataset,
         "--cache", str(arguments.work / "cache"), *work],
        input=json.dumps(spec), stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{command} {spec} failed: {run.stdout[-2000:]}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def random_schedule(seed, path):
    """One policy of uniformly random levels, as a schedule of one epoch."""
    draw = random.Random(seed)
    policy = [[draw.randint(0, 10), draw.randint(0, 9)] for _ in range(2 * len(OPS))]
    path.write_text(json.dumps({"format": "pba-schedule/1", "name": f"random-{seed}", "epochs": 1, "ops": OPS,
                                "segments": [{"epochs": 1, "policy": policy}]}))


def test_error(arguments, condition, seed):
    result = arguments.work / f"{condition}-{seed}.json"
    if result.exists():
        return json.loads(result.read_text())["test_error"]
    spec = {"model": "tiny", "epochs": arguments.epochs, "train_size": arguments.train_size, "batch_size": 32,
            "base": arguments.base, "seed": 100 + seed, "device": "cpu",
            "ablation": "shuffled" if condition == "shuffled" else "scheduled"}
    schedule = "none"
    if condition in ("learned", "shuffled"):
        schedule = str(arguments.work / "search" / "schedule.json")
    elif condition == "random":
        path = arguments.work / f"random-policy-{seed}.json"
        random_schedule(seed, path)
        schedule = str(path)
    evaluated = trainer(arguments, "evaluate", spec, ["--schedule", schedule])[-1]
    result.write_text(json.dumps(evaluated))
    return evaluated["test_error"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", default="target/release/pba-trainer")
    parser.add_argument("--dataset", default="shapes")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/learns"))
    parser.add_argument("--base", default="pad_crop:4,flip")
    parser.add_argument("--train-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=120, help="epochs of the models trained from scratch")
    parser.add_argument("--search-epochs", type=int, default=80)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--val-size", type=int, default=1000)
    parser.add_argument("--search-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    # Runs that do not need the schedule go first, on the same cores as everything else.
    search = {"name": "shapes-pba", "model": "tiny", "population": arguments.population,
              "epochs": arguments.search_epochs, "train_size": arguments.train_size,
              "val_size": arguments.val_size, "batch_size": 32, "base": arguments.base,
              "seed": arguments.search_seed, "device": "cpu"}
    done = trainer(arguments, "search", search, ["--dir", str(arguments.work / "search")])
    schedule = json.loads((arguments.work / "search" / "schedule.json").read_text())
    print(f"search: {json.dumps(search)}")
    print(f"score {schedule['provenance'].get('score')}, {len(schedule['segments'])} segments"
          + "".join(f", {event['seconds']} s" for event in done[-1:] if "seconds" in event))

    jobs = [(condition, seed) for seed in range(arguments.seeds) for condition in CONDITIONS]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = dict(zip(jobs, pool.map(lambda job: test_error(arguments, *job), jobs)))
    print(f"\n`tiny` from scratch: {arguments.epochs} epochs on {arguments.train_size} images, "
          f"base `{arguments.base}`, {arguments.seeds} seeds\n")
    print("| augmentation | mean test error, % | standard deviation | " +
          " | ".join(f"seed {seed}" for seed in range(arguments.seeds)) + " |")
    print("| --- " * (3 + arguments.seeds) + "|")
    for condition in CONDITIONS:
        of_seeds = [100 * errors[condition, seed] for seed in range(arguments.seeds)]
        print(f"| {condition} | {statistics.mean(of_seeds):.2f} | {statistics.stdev(of_seeds):.2f} | " +
              " | ".join(f"{error:.2f}" for error in of_seeds) + " |")


if __name__ == "__main__":
    main()
