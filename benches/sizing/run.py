#!/usr/bin/env python3
"""Replicas that are killed under clients that stripe over them, on this machine.

    python3 benches/sizing/run.py [--bin-dir FOLDER] [--replicas 4] [--clients 64] [--epochs 5] [--kill-every 3] [--seed 1]

Replicas share a data directory. Each client reads epochs of its own seed, as a training loop that takes a batch every
`--step` seconds: batch k from replica k modulo their number, by one stream to each (`start`, `step`), each of which goes
on at another replica when its own is gone. One replica, drawn from the seed, is killed (SIGKILL) every `--kill-every`
seconds, and started again a second later. The run passes when every client had every image of every epoch exactly once,
with the pixels that an undisturbed server sends. Writes `results/sizing/run.md`.

The client has to be importable (`make test` makes an environment in which it is: `.venv/bin/python`).
"""

import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
import pba_client  # noqa: E402
from machine import RESULTS, circumstances, programs, say  # noqa: E402

# Large enough that an epoch does not fit into the buffers of sockets: a stream that is sent already cannot be cut.
DATASET, SPLIT, SCHEDULE = "shapes", "train", "cifar10-pba"
# The last policies are the strongest.
FIRST_EPOCH = 180
EPOCHS_MAX = 20
# Of one process; more would take turns in its interpreter.
THREADS_MAX = 8
START_SECONDS = 120
# How long a replica that was killed is away.
AWAY_SECONDS = 1.0
# Clients give up on replicas that are all away for longer.
RETRY_SECONDS = 60


class Replica:
    """A server that is killed and started again on the same port."""

    def __init__(self, program, folder, listen="127.0.0.1:0"):
        self.command = [program, "serve", "--data-dir", folder, "--streams-per-client-max", "4096", "--threads", "1"]
        self.process, self.url = None, None
        self.start(listen)

    def start(self, listen):
        self.process = subprocess.Popen([*self.command, "--listen", listen], stdout=subprocess.PIPE, text=True,
                                        env={"RUST_LOG": "error", **os.environ})
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"a replica did not start: {line!r}")
        self.url = line.split()[2]

    def again(self):
        self.process.wait()
        self.process.stdout.close()
        self.start(self.url.removeprefix("http://"))

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def digest_of(batches):
    """One of all images of some batches, in the order of the dataset; and whether each is there once."""
    indices = np.concatenate([batch.index for batch in batches])
    order = np.argsort(indices)
    whole = hashlib.blake2b(digest_size=16)
    for column in ("index", "label", "image"):
        whole.update(np.concatenate([getattr(batch, column) for batch in batches])[order])
    return whole.hexdigest(), bool(np.array_equal(indices[order], np.arange(len(indices))))


def epoch_of(client, seed, number, batch, start=0, step=1):
    return client.epoch(DATASET, number, split=SPLIT, schedule=SCHEDULE, seed=seed, batch_size=batch, start=start, step=step)


def train(urls, seed, arguments):
    """One client: for each epoch, its digest, whether it is whole, seconds, seconds waited, and resumptions."""
    replicas = len(urls)
    # Each stream prefers another replica.
    clients = [pba_client.Client(urls[k:] + urls[:k], retry_seconds=RETRY_SECONDS) for k in range(replicas)]
    told = []
    for number in range(FIRST_EPOCH, FIRST_EPOCH + arguments.epochs):
        begun, waited, batches = time.perf_counter(), 0.0, []
        due = begun
        streams = [epoch_of(client, seed, number, arguments.batch, k, replicas) for k, client in enumerate(clients)]
        turns = [iter(stream) for stream in streams]
        waited += time.perf_counter() - begun
        while True:
            asked = time.perf_counter()
            batch = next(turns[len(batches) % replicas], None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            batches.append(batch)
            # What a training step takes; it begins when its batch is there.
            due = max(due, time.perf_counter()) + arguments.step
            time.sleep(max(0.0, due - time.perf_counter()))
        # The others have no batch more either.
        left = sum(1 for turn in turns for _ in turn)
        digest, once = digest_of(batches)
        told.append({"digest": digest, "once": once and not left, "batches": len(batches), "seconds": time.perf_counter() - begun,
                     "waited": waited, "resumes": sum(stream.resumes for stream in streams)})
    return told


def trained(urls, seeds, arguments):
    """Some clients of one process."""
    with concurrent.futures.ThreadPoolExecutor(len(seeds)) as pool:
        return list(pool.map(lambda seed: train(urls, seed, arguments), seeds))


def undisturbed(url, seed, arguments):
    client = pba_client.Client(url)
    return [digest_of(list(epoch_of(client, seed, number, 500)))[0]
            for number in range(FIRST_EPOCH, FIRST_EPOCH + arguments.epochs)]


class Killer(threading.Thread):
    """Kills one replica after another."""

    def __init__(self, replicas, every, seed):
        super().__init__()
        self.replicas, self.every, self.draws = replicas, every, random.Random(seed)
        self.stopping, self.kills, self.failure = threading.Event(), 0, None

    def run(self):
        try:
            while not self.stopping.wait(self.every):
                victim = self.draws.choice(self.replicas)
                victim.process.kill()
                self.kills += 1
                time.sleep(AWAY_SECONDS)
                victim.again()
        except BaseException as failure:  # Shown by who runs it.
            self.failure = failure

    def end(self):
        self.stopping.set()
        self.join()
        if self.failure:
            raise self.failure


def wait_until_ready(url):
    end = time.monotonic() + START_SECONDS
    while not any(dataset["name"] == DATASET and dataset.get("state") == "ready" for dataset in pba_client.Client(url).datasets()):
        if time.monotonic() > end:
            raise SystemExit(f"{url} is not ready after {START_SECONDS} s")
        time.sleep(0.1)


def measure(program, arguments):
    """What each client told, how many replicas were killed, and which epochs should have come."""
    with tempfile.TemporaryDirectory(prefix="pba-sizing-") as folder:
        replicas = [Replica(program, folder)]
        try:
            wait_until_ready(replicas[0].url)
            replicas += [Replica(program, folder) for _ in range(arguments.replicas - 1)]
            urls = [replica.url for replica in replicas]
            seeds = range(arguments.clients)
            shares = [list(seeds[k:k + THREADS_MAX]) for k in range(0, arguments.clients, THREADS_MAX)]
            killer = Killer(replicas, arguments.kill_every, arguments.seed)
            # Not forked: threads of this process may hold locks.
            with concurrent.futures.ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as pool:
                killer.start()
                try:
                    runs = [pool.submit(trained, urls, share, arguments) for share in shares]
                    told = [client for run in runs for client in run.result()]
                finally:
                    killer.end()
            expected = [undisturbed(urls[0], seed, arguments) for seed in seeds]
        finally:
            for replica in replicas:
                replica.end()
    return told, killer.kills, expected


def table(told, kills, expected, arguments):
    """The lines of the table, and whether all is as it should be."""
    epochs = [epoch for client in told for epoch in client]
    once = sum(epoch["once"] for epoch in epochs)
    right = sum(epoch["digest"] == digest for client, digests in zip(told, expected) for epoch, digest in zip(client, digests))
    shares = sorted(sum(epoch["waited"] for epoch in client) / sum(epoch["seconds"] for epoch in client) for client in told)
    resumed = sum(epoch["resumes"] for epoch in epochs)
    wanted = arguments.clients * arguments.epochs
    seconds = max(sum(epoch["seconds"] for epoch in client) for client in told)
    images = sum(epoch["batches"] for epoch in epochs) * arguments.batch
    rows = [
        ("replicas, and how often one was killed", f"{arguments.replicas}, {kills}"),
        ("clients, streams at a time", f"{arguments.clients}, {arguments.clients * arguments.replicas}"),
        ("epochs asked for", f"{wanted:,}"),
        ("with every image exactly once", f"{once:,}"),
        ("with the pixels of an undisturbed server", f"{right:,}"),
        ("streams that were cut and went on", f"{resumed:,}"),
        ("share of time waited: least, median, most of a client",
         ", ".join(f"{100 * share:.1f} %" for share in (shares[0], statistics.median(shares), shares[-1]))),
        ("images/s of all clients", f"{images / seconds:,.0f}"),
    ]
    lines = ["| | |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in rows)]
    good = len(epochs) == wanted == once == right and kills > 0
    return "\n".join(lines), good, {"kills": kills, "epochs": wanted, "once": once, "right": right, "resumes": resumed,
                                    "waited_most": shares[-1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=pathlib.Path, help="folder of pba; built when not given")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5, help=f"of each client, {EPOCHS_MAX} at most")
    parser.add_argument("--batch", type=int, default=100, help="images a batch")
    parser.add_argument("--step", type=float, default=0.1, help="seconds that a client takes for a batch")
    parser.add_argument("--kill-every", type=float, default=3, help="seconds")
    parser.add_argument("--seed", type=int, default=1, help="of which replica is killed")
    parser.add_argument("--json", action="store_true", help="print numbers, and write no table")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "sizing")
    arguments = parser.parse_args()
    if not 1 <= arguments.epochs <= EPOCHS_MAX:
        parser.error(f"--epochs is {arguments.epochs}; expected 1 to {EPOCHS_MAX}")
    for name in ("replicas", "clients", "batch", "step", "kill_every"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected more than 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    (program,) = programs(["pba"], arguments.bin_dir)
    say(f"{arguments.clients} clients, {arguments.replicas} replicas")
    lines, good, numbers = table(*measure(program, arguments), arguments)
    if arguments.json:
        print(json.dumps(numbers))
    else:
        text = f"""# Replicas that are killed

{lines}

Each client takes a batch of {arguments.batch} images of 32x32 every {arguments.step:g} s, if it is there, and stripes over all
replicas; waiting begins when it asks for one, and the first batches of an epoch count. One replica is killed (SIGKILL) every
{arguments.kill_every:g} s plus the second that it is away, and all replicas and clients share the machine's cores.

{circumstances("sizing/run.py")} {os.path.basename(os.path.realpath(program.parent))} build.
"""
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "run.md").write_text(text)
        print(text)
    if not good:
        raise SystemExit("an epoch is not as it should be, or no replica was killed")


if __name__ == "__main__":
    main()
