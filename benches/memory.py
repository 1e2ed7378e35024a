#!/usr/bin/env python3
"""Shows that the server's memory is flat: over 1,000 epochs, and over 1,000 clients that come and go.

    python3 benches/memory.py [--bin-dir FOLDER] [--epochs 1000] [--clients 1000]

Epochs are of 2,000 images (a fifth of the built-in dataset), one after another, each read to its
end. Clients come eight at a time; of eight, four read an epoch to its end, one leaves in the
middle, one resets its connection in the middle, one reads slowly, and one is a process that is
killed in the middle. Memory, file descriptors, threads and streams are read from outside after each
fiftieth. The verdict compares the last quarter of the samples with the second one. Writes
`results/memory.md` and `results/memory.svg`. Takes a minute or two.
"""

import argparse
import concurrent.futures
import os
import pathlib
import signal
import socket
import statistics
import struct
import sys
import tempfile
import time

from machine import RESULTS, Server, circumstances, megabytes, programs, say

SCHEDULE_EPOCHS = 200
QUERY = "schedule=cifar10-pba&shard=0/5"
SAMPLES = 40
TOGETHER = 8
# What may grow between the second and the last quarter and still be called flat: noise of an
# allocator, far below one stream's batches.
GROWTH_BYTES_MAX = 2_000_000
BUFFER_BYTES = 1 << 18


def read(connection, limit=None, pause=0.0):
    """Reads an answer, to its end or to `limit` bytes; answers how many."""
    buffer, count = memoryview(bytearray(BUFFER_BYTES)), 0
    while (limit is None or count < limit) and (got := connection.recv_into(buffer)):
        count += got
        if pause:
            time.sleep(pause)
    return count


def whole(server, epoch):
    with server.open("shapes", epoch % SCHEDULE_EPOCHS, QUERY) as connection:
        count = read(connection)
    # 2,000 images of 3,072 bytes; less would be a cut stream.
    if count < 2_000 * 3_072:
        raise SystemExit(f"epoch {epoch} ended after {count} bytes")


def leaves(server, epoch):
    with server.open("shapes", epoch % SCHEDULE_EPOCHS, QUERY) as connection:
        read(connection, 1 << 20)


def resets(server, epoch):
    with server.open("shapes", epoch % SCHEDULE_EPOCHS, QUERY) as connection:
        read(connection, 1 << 20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def slow(server, epoch):
    with server.open("shapes", epoch % SCHEDULE_EPOCHS, QUERY) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        read(connection, 1 << 20, pause=0.01)


def killed(server, epoch):
    # Forked, because to start a Python takes longer than what it would do here.
    child = os.fork()
    if child == 0:
        try:
            connection = server.open("shapes", epoch % SCHEDULE_EPOCHS, QUERY)
            read(connection, 1 << 20)
            time.sleep(60)
        finally:
            os._exit(1)
    time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


CLIENTS = [whole, leaves, whole, resets, whole, slow, whole, killed]


def sampled(server, done):
    return {"done": done, **server.memory(), "files": server.files(), "threads": server.threads(),
            "streams": server.metrics()["pba_streams_active"]}


def idle(server):
    """Waits until the server has seen that its clients are gone; at most 10 s."""
    for _ in range(100):
        if server.metrics()["pba_streams_active"] == 0:
            return
        time.sleep(0.1)


def epochs(server, count):
    samples = []
    for epoch in range(count):
        if epoch % max(1, count // SAMPLES) == 0:
            samples.append(sampled(server, epoch))
        whole(server, epoch)
    idle(server)
    return [*samples, sampled(server, count)]


def fill(server):
    """Lets more streams than ever come together hold all the batches that they may. Buffers are
    pooled, so that memory climbs by one whenever more are in use than ever before; this takes all
    these steps before the first sample, and what grows afterwards is no such step."""
    streams = [server.open("shapes", 0, QUERY) for _ in range(2 * TOGETHER)]
    time.sleep(2)
    for connection in streams:
        connection.close()
    idle(server)


def clients(server, count):
    fill(server)
    samples = []
    step = max(TOGETHER, count // SAMPLES // TOGETHER * TOGETHER)
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        for first in range(0, count, step):
            idle(server)
            samples.append(sampled(server, first))
            running = [pool.submit(CLIENTS[number % len(CLIENTS)], server, number)
                       for number in range(first, min(count, first + step))]
            for client in running:
                client.result()
    idle(server)
    return [*samples, sampled(server, count)]


def quarters(samples, key):
    """Medians of the second and of the last quarter."""
    quarter = max(1, len(samples) // 4)
    return [statistics.median(sample[key] for sample in part)
            for part in (samples[quarter:2 * quarter], samples[-quarter:])]


def verdict(samples):
    before, after = quarters(samples, "anonymous")
    flat = after - before <= GROWTH_BYTES_MAX
    for key in ("files", "threads", "streams"):
        second, last = quarters(samples, key)
        # One connection of a client that is just leaving may be counted.
        flat &= last <= second + 1
    return flat, after - before


def table(samples):
    lines = ["| after | resident, MB | anonymous, MB | file descriptors | threads | streams |",
             "| ---: | ---: | ---: | ---: | ---: | ---: |"]
    for sample in samples[::max(1, len(samples) // 10)] + samples[-1:]:
        lines.append(f"| {sample['done']:,} | {megabytes(sample['resident'])} | {megabytes(sample['anonymous'])} | "
                     f"{sample['files']} | {sample['threads']} | {sample['streams']:.0f} |")
    return "\n".join(lines)


def drawing(parts):
    """Anonymous memory over time, a curve for each part."""
    width, height, top = 640, 200, max(sample["anonymous"] for samples in parts.values() for sample in samples) * 1.1
    curves = []
    for colour, (name, samples) in zip(("#1f77b4", "#d62728"), parts.items()):
        points = " ".join(f"{40 + (width - 60) * sample['done'] / samples[-1]['done']:.1f},"
                          f"{height - 30 - (height - 50) * sample['anonymous'] / top:.1f}" for sample in samples)
        curves.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
                      f'<text x="{width - 20}" y="{20 + 16 * len(curves)}" text-anchor="end" fill="{colour}">{name}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
            f'<path d="M40 20V{height - 30}H{width - 20}" fill="none" stroke="gray"/>'
            f'<text x="4" y="16">{top / 1e6:.0f} MB anonymous</text><text x="40" y="{height - 10}">0</text>'
            f'<text x="{width - 20}" y="{height - 10}" text-anchor="end">epochs, clients</text>{"".join(curves)}</svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin-dir", type=pathlib.Path, help="folder of pba; built when not given")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    (program,) = programs(["pba"], arguments.bin_dir)
    with tempfile.TemporaryDirectory(prefix="pba-memory-") as folder:
        server = Server(program, folder, os.sched_getaffinity(0))
        try:
            started = time.monotonic()
            say(f"{arguments.epochs} epochs")
            over_epochs = epochs(server, arguments.epochs)
            say(f"{arguments.clients} clients")
            over_clients = clients(server, arguments.clients)
            seconds = time.monotonic() - started
        finally:
            server.close()
    parts = {"epochs": over_epochs, "clients that come and go": over_clients}
    text = f"# Memory of the server\n\n{circumstances('memory.py')} It took {seconds:.0f} s.\n"
    all_flat = True
    for (name, samples), count in zip(parts.items(), (arguments.epochs, arguments.clients)):
        flat, growth = verdict(samples)
        all_flat &= flat
        text += f"""
## {count:,} {name}

{table(samples)}

**{'Flat' if flat else 'It grows'}**: the median of anonymous memory changed by {growth / 1e6:+.2f} MB from the second quarter to the last one (at most {GROWTH_BYTES_MAX / 1e6:g} MB is called flat, and no more file descriptors, threads or streams).
"""
    text += """
An epoch is 2,000 images of 32x32 under the paper's schedule. Of eight clients, which come at the same time, four read their epoch to its end, one leaves in the middle, one resets its connection, one reads slowly and leaves, one is a process that is killed. Before the first of them, sixteen streams that nobody reads fill the pool of buffers. Anonymous memory is what the server allocated; the rest of what is resident are pages of packed datasets and of the program, which the kernel can take back.

![anonymous memory](memory.svg)
"""
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "memory.md").write_text(text)
    (arguments.out / "memory.svg").write_text(drawing(parts))
    print(text)
    if not all_flat:
        raise SystemExit("memory grows")


if __name__ == "__main__":
    main()
