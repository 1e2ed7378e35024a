#!/usr/bin/env python3
"""Does a learned schedule help? Several searches, then one comparison that opens the test split once.

    make build
    python3 benches/learns/run.py [--dataset NAME=PATH] [--data-dir DIR] [--searches 3] [--seeds 6]

Starts a server on a free port of this machine, queues searches that differ in their seed alone, and then a
comparison of base augmentation, TrivialAugment, a RandAugment tuned on validation images, the paper's
schedule, random schedules, every learned schedule, and each with its epochs shuffled. Jobs keep their state in
the data directory, so that a run that is interrupted goes on, and one that has ended only prints its report, as
Markdown. Ctrl-C stops the server; what was reached is printed. A schedule that is in --learned already, as
learned-SEED.json, is taken from there and not searched for again; new ones are written there.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

POLL_SECONDS = 5


class Server:
    """A server of this machine, and its API."""

    def __init__(self, arguments):
        command = [arguments.pba, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(arguments.data_dir)]
        if arguments.dataset:
            command += ["--dataset", arguments.dataset]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"{' '.join(command)} did not start")
        self.url = line.split()[-1]

    def ask(self, path, body=None, method=None):
        """The answer to a request as bytes; none where there is nothing of that name."""
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.url + path, data=data, method=method)
            with urllib.request.urlopen(request) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404 and body is None:
                return None
            raise SystemExit(f"{path}: {error.read().decode()}") from error

    def job(self, kind, spec):
        """Queues a job unless it is there already, or resumes it where it was stopped."""
        path = f"/v1/{kind}/{spec['name']}"
        known = self.ask(path)
        if known is None:
            self.ask(f"/v1/{kind}", spec)
        elif json.loads(known)["state"] in ("failed", "cancelled"):
            self.ask(path + "/resume", {})

    def wait(self, kind, name):
        """Waits until a job has ended, and shows where it is."""
        while True:
            job = json.loads(self.ask(f"/v1/{kind}/{name}"))
            progress = job["progress"] or {}
            left = progress.get("seconds_left")
            shown = f"{name} {job['state']} {100 * progress.get('fraction', 0):.1f} %"
            print(shown + (f", {left / 60:.0f} min left" if left else ""), file=sys.stderr, flush=True)
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            time.sleep(POLL_SECONDS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pba", default="target/release/pba")
    parser.add_argument("--data-dir", type=pathlib.Path, default=pathlib.Path("target/learns"))
    parser.add_argument("--dataset", help="NAME=PATH; by default the built-in shapes")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--base", default="pad_crop:4,flip,cutout:8", help="base augmentation of every arm")
    parser.add_argument("--train-size", type=int, default=2000)
    parser.add_argument("--val-size", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=150, help="of searches and of the models from scratch")
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--learned", type=pathlib.Path, help="folder of the schedules that are learned")
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args()

    training = {"dataset": (arguments.dataset or "shapes=").split("=")[0], "model": arguments.model,
                "base": arguments.base, "epochs": arguments.epochs, "train_size": arguments.train_size,
                "val_size": arguments.val_size}
    learned = [f"learned-{seed}" for seed in range(arguments.searches)]
    shuffled = [f"{name}@shuffled" for name in learned]
    chance = [f"random:{seed}" for seed in range(arguments.searches)]
    arms = ["none", "trivial-augment-wide", "randaugment:tuned", "cifar10-pba", *chance, *learned, *shuffled]
    groups = {"random": chance, "learned": learned, "learned-shuffled": shuffled} if len(learned) > 1 else {}

    server = Server(arguments)
    try:
        known = {}
        for seed, name in enumerate(learned):
            path = arguments.learned and arguments.learned / f"{name}.json"
            if path and path.exists():
                known[name] = server.ask(f"/v1/schedules/{name}", json.loads(path.read_text()), "PUT")
                continue
            server.job("searches", {**training, "name": name, "seed": seed, "population": arguments.population})
        for name in learned:
            if name in known:
                continue
            if server.wait("searches", name)["state"] != "done":
                raise SystemExit(f"search {name} did not end well")
            if arguments.learned:
                arguments.learned.mkdir(parents=True, exist_ok=True)
                (arguments.learned / f"{name}.json").write_bytes(server.ask(f"/v1/schedules/{name}"))
        # A round is a seed: whenever it is looked at, every arm has the same seeds. Seeds of searches are
        # not used again.
        server.job("comparisons", {**training, "name": "learns", "arms": arms, "groups": groups, "seed": 100,
                                   "seeds": arguments.seeds, "at_once": len(arms)})
        server.wait("comparisons", "learns")
    except KeyboardInterrupt:
        print("interrupted; start it again to go on", file=sys.stderr)
    finally:
        report = server.ask("/v1/comparisons/learns/report.md")
        if report:
            print(report.decode())
        server.process.terminate()
        server.process.wait()


if __name__ == "__main__":
    main()
