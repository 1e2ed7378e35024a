#!/usr/bin/env python3
"""How the stream scales: cores, streams, batch sizes, and samples in the dataset; memory for each.

    python3 benches/scaling.py [--bin-dir FOLDER] [--seconds 2] [--rounds 5] [--only cores,streams,batch,samples]

The reader is one Python process that reads all connections with `recv_into` into one buffer and
looks at nothing, so that a client is not what is measured; where the server has one core, the
reader has the other one. Images are counted by the server (`pba_images_augmented_total`), over a
time when all streams run. Work is (a): the last epoch of the paper's CIFAR-10 schedule with its base
augmentation, on the built-in dataset, 32x32. Writes `results/scaling.md`. Takes a few minutes; about
1.2 GB of disk for a while.
"""

import argparse
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from machine import RESULTS, Server, circumstances, megabytes, programs, say

EPOCH = 199
BUFFER_BYTES = 1 << 18
SAMPLES = (1_000, 50_000, 5_000_000)
SMALL_SIDE = 8


class Reader:
    """Keeps so many streams running, and reads them all, in a thread of this process. A stream that
    ends is opened again."""

    def __init__(self, server, dataset, streams, query):
        self.server, self.dataset, self.query = server, dataset, query
        self.stopping, self.failure = False, None
        self.connections, self.seen = {}, 0
        self.poll = select.epoll()
        for _ in range(streams):
            self.open()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def open(self):
        connection = self.server.open(self.dataset, EPOCH, self.query)
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poll.register(connection, select.EPOLLIN)

    def run(self):
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            while not self.stopping:
                for number, _ in self.poll.poll(0.1):
                    connection = self.connections[number]
                    count = connection.recv_into(buffer)
                    if count and not self.seen and not bytes(buffer[:12]).endswith(b" 200"):
                        raise RuntimeError(bytes(buffer[:300]).decode(errors="replace"))
                    self.seen += count
                    if not count:
                        self.poll.unregister(connection)
                        self.connections.pop(number).close()
                        self.open()
        except Exception as failure:  # Shown by who measures.
            self.failure = failure

    def close(self):
        self.stopping = True
        self.thread.join()
        for connection in self.connections.values():
            connection.close()
        self.poll.close()
        if self.failure:
            raise self.failure


def measure(server, dataset, streams, query, rounds, seconds):
    """Images per second, and per second of the server's processor time, of each round; memory at
    the end, while all streams still run."""
    reader = Reader(server, dataset, streams, query)
    try:
        time.sleep(max(0.5, seconds / 2))
        found = []
        for _ in range(rounds):
            before, cpu, start = server.metrics()["pba_images_augmented_total"], server.cpu_seconds(), time.perf_counter()
            time.sleep(seconds)
            after, wall = server.metrics()["pba_images_augmented_total"], time.perf_counter() - start
            images = after - before
            found.append((images / wall, images / max(0.01, server.cpu_seconds() - cpu)))
        memory = server.memory()
    finally:
        reader.close()
    rates, per_cpu = zip(*found)
    return {"rate": statistics.median(rates), "least": min(rates), "most": max(rates),
            "per_cpu": statistics.median(per_cpu), **memory}


def row(*first, found):
    return (f"| {' | '.join(map(str, first))} | {three(found['rate'])} | {three(found['least'])} to {three(found['most'])} | "
            f"{three(found['per_cpu'])} | {megabytes(found['resident'])} | {megabytes(found['anonymous'])} |")


def three(value):
    return f"{value:,.0f}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"


def head(*first):
    return (f"| {' | '.join(first)} | images/s | least to most | per server's CPU second | resident, MB | anonymous, MB |\n"
            f"|{' ---: |' * (len(first) + 5)}")


def fresh(program, cores, query, streams, rounds, seconds):
    """A measurement on a server of its own, so that its memory is this load's alone."""
    with tempfile.TemporaryDirectory(prefix="pba-scaling-") as folder:
        server = Server(program, folder, cores, ["--streams-per-client-max", str(max(streams, 128))])
        try:
            return measure(server, "shapes", streams, query, rounds, seconds)
        finally:
            server.close()


def query(batch=128):
    return f"schedule=cifar10-pba&batch_size={batch}"


def cores(program, rate, allowed, rounds, seconds):
    # The reader runs where this process runs.
    lines = [head("server's cores", "reader's core")]
    os.sched_setaffinity(0, {allowed[-1]})
    lines.append(row(1, "the other one", found=fresh(program, {allowed[0]}, query(), 8, rounds, seconds)))
    os.sched_setaffinity(0, allowed)
    lines.append(row(2, "both, shared", found=fresh(program, set(allowed[:2]), query(), 8, rounds, seconds)))
    engine = []
    for count in (1, 2):
        processes = [subprocess.Popen([rate, "--seconds", str(seconds), "--pictures", "10000"], stdout=subprocess.PIPE, text=True,
                                      preexec_fn=lambda core=core: os.sched_setaffinity(0, {core}))
                     for core in allowed[:count]]
        runs = [json.loads(process.communicate()[0]) for process in processes]
        engine.append(sum(run["images"] / run["wall_seconds"] for run in runs))
    return "\n".join([
        "## Cores", "", "8 streams, batches of 128. The kernel's copies for both ends, and the reader, want a core as well.", "",
        *lines, "",
        f"The engine alone, one thread per core and no socket: {three(engine[0])} images/s on one core, "
        f"{three(engine[1])} on two ({engine[1] / engine[0]:.2f} times)."])


def streams(program, rate, allowed, rounds, seconds):
    os.sched_setaffinity(0, allowed)
    lines = [head("streams")]
    for count in (1, 8, 64, 256):
        say(f"{count} streams")
        lines.append(row(count, found=fresh(program, set(allowed[:2]), query(), count, rounds, seconds)))
    return "\n".join(["## Streams", "", "Batches of 128, server and reader on two cores together. Each stream holds at most "
                      "`batches_ahead` (3) ready batches of 395 kB, and what is being sent; that is the growth.", "", *lines])


def batch(program, rate, allowed, rounds, seconds):
    os.sched_setaffinity(0, allowed)
    lines = [head("images a batch")]
    for size in (1, 32, 128, 1024):
        say(f"batches of {size}")
        lines.append(row(size, found=fresh(program, set(allowed[:2]), query(size), 8, rounds, seconds)))
    return "\n".join(["## Batch sizes", "", "8 streams, server and reader on two cores together.", "", *lines])


def samples(program, rate, allowed, rounds, seconds, maker):
    os.sched_setaffinity(0, allowed)
    engine = ["| samples | images/s of one core | to the first |", "| ---: | ---: | ---: |"]
    rates = {count: [] for count in SAMPLES}
    for _ in range(rounds):
        for count in SAMPLES:
            run = subprocess.run([rate, "--pictures", "1000", "--samples", str(count), "--seconds", str(seconds)],
                                 stdout=subprocess.PIPE, text=True, check=True)
            rates[count].append(json.loads(run.stdout)["images_per_cpu_second"])
    for count, found in rates.items():
        ratio = statistics.median(mine / first for mine, first in zip(found, rates[SAMPLES[0]]))
        engine.append(f"| {count:,} | {three(statistics.median(found))} | {ratio:.2f} |")
    lines = [head("samples", "packed file, MB", "ready after, s")]
    with tempfile.TemporaryDirectory(prefix="pba-scaling-") as folder:
        # So that the built-in dataset is drawn before anything is timed.
        Server(program, f"{folder}/data", set(allowed[:2])).close()
        for count in SAMPLES:
            say(f"{count} samples")
            dataset = pathlib.Path(folder, "dataset")
            subprocess.run([maker, dataset, "--samples", str(count), "--size", str(SMALL_SIDE)], check=True)
            start = time.perf_counter()
            server = Server(program, f"{folder}/data", set(allowed[:2]), ["--dataset", f"small={dataset}"])
            ready = time.perf_counter() - start
            try:
                size = (dataset / "train.arrow").stat().st_size
                found = measure(server, "small", 8, f"{query()}&base=pad_crop:1,flip,cutout:4", rounds, seconds)
            finally:
                server.close()
            lines.append(row(f"{count:,}", megabytes(size), f"{ready:.2f}", found=found))
            (dataset / "train.arrow").unlink()
    return "\n".join([
        "## Samples", "",
        "The index alone: one core renders (a) with as many samples in the epoch's order, but the same 1,000 pictures of 32x32 "
        "behind them, which stay in the cache. A flat rate says that order, draws and lookup do not grow with the dataset.",
        "", *engine, "",
        f"The whole server with real packed files of {SMALL_SIDE}x{SMALL_SIDE} pictures, 8 streams: here the pictures leave the "
        "cache as well. `ready after` is from the program's start to its first line; opening reads every label and no pixel. Resident memory holds the pages of the mapped file "
        "that were touched; the anonymous part does not.", "", *lines])


PARTS = {"cores": cores, "streams": streams, "batch": batch, "samples": samples}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=pathlib.Path, help="folder of pba, pba-rate and pba-make-packed; built when not given")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}; what was written before stays")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    program, rate, maker = programs(["pba", "pba-rate", "pba-make-packed"], arguments.bin_dir)
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("two cores are needed")
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept_file = arguments.out / "scaling.json"
    kept = json.loads(kept_file.read_text()) if kept_file.exists() else {}
    for name in arguments.only.split(","):
        if name not in PARTS:
            parser.error(f"unknown: {name}; known are {', '.join(PARTS)}")
        say(name)
        more = {"maker": maker} if name == "samples" else {}
        text = PARTS[name](program, rate, allowed, arguments.rounds, arguments.seconds, **more)
        kept[name] = f"{text}\n\n{circumstances('scaling.py')} Medians of {arguments.rounds} rounds of {arguments.seconds:g} s.\n"
        kept_file.write_text(json.dumps(kept, indent=1))
        introduction = ("# Scaling\n\nOne Python process reads all connections into one buffer and looks at nothing. Work is (a), "
                        "32x32, unless said. Each line of cores, streams and batch sizes has a server of its own, so its memory is "
                        "of that load alone.\n\n")
        (arguments.out / "scaling.md").write_text(introduction + "\n".join(kept[part] for part in PARTS if part in kept))
    print((arguments.out / "scaling.md").read_text())


if __name__ == "__main__":
    main()
