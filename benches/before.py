"""Rates of this build beside those of an earlier one, in turn, in one run.

    python3 benches/before.py --before PBA CLIENT --after PBA CLIENT

PBA is a release build of the server, CLIENT the folder `client/python/src` of the same commit. It measures what a
Python client receives of the built-in dataset, 128 images of 32x32 a batch, over TCP and through shared memory:
(d) `identity`, one worker, the server on one core and the client on another; (e) the last policy of the paper's
CIFAR-10 schedule with two workers, both on both cores. For each, the medians of the rates, their ratio, the median
of the ratios of pairs, and the CPU time of server and client for each image.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Tuple

CLIENT = """
import json, sys, time
from pba_client import Client
for line in sys.stdin:
    url, schedule, seconds = line.split()
    client = Client(url)
    for _ in client.epoch("shapes", 150, schedule=schedule):
        pass
    images, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < float(seconds):
        for batch in client.epoch("shapes", 150, schedule=schedule):
            images += len(batch)
    print(json.dumps([images, time.perf_counter() - start, time.process_time() - cpu]), flush=True)
"""
# Name, workers, cores of server and client, schedule.
WORKS = (("d", 1, "0", "1", "identity"), ("e", 2, "0,1", "0,1", "cifar10-pba"))
TICKS = os.sysconf("SC_CLK_TCK")


class Rate(NamedTuple):
    """Of one measurement."""

    images: float  # per second
    server: float  # CPU time for an image, ns
    client: float


class Side:
    """A server, and a client of the same commit."""

    def __init__(self, build: Tuple[str, str], workers: int, server: str, client: str) -> None:
        pba, source = build
        self._folder = tempfile.TemporaryDirectory()
        self._socket = Path(self._folder.name) / "pba.sock"
        command = [pba, "serve", "--listen", "127.0.0.1:0", "--data-dir", self._folder.name]
        self._server = subprocess.Popen(
            ["taskset", "-c", server, *command, "--socket", self._socket, "--threads", str(workers)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self._url = re.search(r"http://\S+", self._server.stdout.readline()).group(0)
        self._client = subprocess.Popen(
            ["taskset", "-c", client, sys.executable, "-c", CLIENT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source},
        )
        # Its dataset is imported by then.
        self.measure("TCP", "identity", 0.1)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def measure(self, way: str, schedule: str, seconds: float) -> Rate:
        url = self._url if way == "TCP" else f"unix:{self._socket}"
        before = self._cpu()
        print(url, schedule, seconds, file=self._client.stdin, flush=True)
        images, elapsed, cpu = json.loads(self._client.stdout.readline())
        return Rate(images / elapsed, (self._cpu() - before) / images * 1e9, cpu / images * 1e9)

    def end(self) -> None:
        self._client.stdin.close()
        self._client.wait()
        self._server.terminate()
        self._server.wait()
        self._folder.cleanup()


def median(rates: List[Rate]) -> Rate:
    return Rate(*(statistics.median(column) for column in zip(*rates)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for side in ("--before", "--after"):
        parser.add_argument(side, nargs=2, required=True, metavar=("PBA", "CLIENT"))
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each measurement")
    options = parser.parse_args()
    print("| work | images/s before | after | ratio | of pairs | server, CPU ns per image | client, CPU ns per image |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, workers, server, client, schedule in WORKS:
        sides = [Side(build, workers, server, client) for build in (options.before, options.after)]
        for way in ("TCP", "shared memory"):
            rates: Tuple[List[Rate], List[Rate]] = ([], [])
            for number in range(options.rounds):
                for side in ((0, 1), (1, 0))[number % 2]:
                    rates[side].append(sides[side].measure(way, schedule, options.seconds))
            before, after = map(median, rates)
            pairs = statistics.median(new.images / old.images for old, new in zip(*rates))
            print(
                f"| ({name}) `{schedule}`, {way} | {before.images:,.0f} | {after.images:,.0f} "
                f"| {after.images / before.images:.3f} | {pairs:.3f} | {before.server:.0f} -> {after.server:.0f} "
                f"| {before.client:.0f} -> {after.client:.0f} |",
                flush=True,
            )
        for side in sides:
            side.end()


if __name__ == "__main__":
    main()
