"""How much of a raw socket's rate does the client keep?

Reads the same epochs of untouched pixels (the built-in dataset, 10,000 images of 32x32) in four
ways, in turns within one run, and prints images/s with each one's ratio to the raw read:

- raw: ``recv_into`` one reused buffer, nothing looked at; what no client can beat;
- pba_client, with prefetch 0 (reading in the loop's thread) and 2 (the default);
- http.client and ``pyarrow.ipc.open_stream``: what one would write without this package.

At a ``unix:PATH`` URL, the raw read is of a Unix socket, pba_client reads from it as well, and through
the memory that the server shares; http.client cannot.

With ``--replay``, the answer is recorded once and then sent from memory by a process of this
script, so that the kernel's copying and not the server is the limit.

    python benches/identity_stream.py http://127.0.0.1:8080|unix:PATH [--replay] [--epochs 5] [--rounds 7]
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import os
import platform
import socket
import statistics
import time
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from pba_client import Client

IMAGES = 10_000
TARGET = "/v1/datasets/shapes/epochs/{}/batches?batch_size={}&schedule=identity"


def connect(url: str) -> socket.socket:
    if not url.startswith("unix:"):
        parts = urlsplit(url)
        return socket.create_connection((parts.hostname, parts.port))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(url[len("unix:") :])
    return sock


def raw(url: str, epoch: int, batch_size: int, buffer: memoryview) -> int:
    """Reads one answer to the end of the connection; answers its bytes."""
    with connect(url) as sock:
        target = TARGET.format(epoch, batch_size)
        head = f"GET {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        total = 0
        while count := sock.recv_into(buffer):
            total += count
    return total


def by_client(client: Client, epoch: int, batch_size: int) -> None:
    rows = 0
    for batch in client.epoch("shapes", epoch, schedule="identity", batch_size=batch_size):
        rows += len(batch.image)
    assert rows == IMAGES, rows


def by_pyarrow(url: str, epoch: int, batch_size: int) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", TARGET.format(epoch, batch_size))
    rows = 0
    with connection.getresponse() as response:
        for batch in pa.ipc.open_stream(response):
            rows += len(batch.column("image").to_numpy_ndarray())
    connection.close()
    assert rows == IMAGES, rows


def replay(url: str, batch_size: int, ready) -> None:  # type: ignore[no-untyped-def]
    """Records the answer to one request, then gives it to everyone who connects."""
    pieces = []
    with connect(url) as sock:
        target = TARGET.format(0, batch_size)
        head = f"GET {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        while piece := sock.recv(1 << 20):
            pieces.append(piece)
    answer = b"".join(pieces)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready.send(f"http://127.0.0.1:{server.getsockname()[1]}")
        while True:
            peer, _ = server.accept()
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if peer.recv(65536):
                    try:
                        peer.sendall(answer)
                        peer.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="http://HOST:PORT or unix:PATH")
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=128)
    args = parser.parse_args()

    url, process = args.url, None
    if args.replay:
        receive, send = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=replay, args=(url, args.batch_size, send), daemon=True)
        process.start()
        url = receive.recv()

    buffer = memoryview(bytearray(1 << 20))
    direct, ahead = (Client(url, prefetch=batches, shared_memory=False) for batches in (0, 2))
    ways = {
        "raw socket": lambda epoch: raw(url, epoch, args.batch_size, buffer),
        "pba_client, prefetch 0": lambda epoch: by_client(direct, epoch, args.batch_size),
        "pba_client, prefetch 2": lambda epoch: by_client(ahead, epoch, args.batch_size),
    }
    if url.startswith("unix:"):
        shared = Client(url)
        ways["pba_client, shared memory"] = lambda epoch: by_client(shared, epoch, args.batch_size)
    else:
        ways["http.client + pyarrow"] = lambda epoch: by_pyarrow(url, epoch, args.batch_size)
    seconds: dict = {name: [] for name in ways}
    # Of this process, both of its threads and the kernel's part: what a busy machine cannot blur.
    cpu_seconds: dict = {name: [] for name in ways}
    for round_number in range(args.rounds + 1):
        for name, way in ways.items():
            before, cpu_before = time.perf_counter(), time.process_time()
            for epoch in range(args.epochs):
                way(epoch)
            # The first round warms both sides up.
            if round_number:
                seconds[name].append(time.perf_counter() - before)
                cpu_seconds[name].append(time.process_time() - cpu_before)
    if process is not None:
        process.terminate()
        process.join()

    source = "replayed from memory" if args.replay else "from the server"
    print(
        f"{args.epochs} epochs of {IMAGES} images in batches of {args.batch_size}, {source}; "
        f"median of {args.rounds} rounds; Python {platform.python_version()}, "
        f"pyarrow {pa.__version__}, numpy {np.__version__}, {os.cpu_count()} cores"
    )
    base = seconds["raw socket"]
    for name, values in seconds.items():
        rate = args.epochs * IMAGES / statistics.median(values)
        # Rounds are compared one by one, because the machine's speed wanders.
        ratio = statistics.median(b / v for b, v in zip(base, values))
        cpu = statistics.median(cpu_seconds[name]) / (args.epochs * IMAGES)
        print(
            f"{name:26} {rate:12,.0f} images/s   {ratio:5.2f} of raw   "
            f"{cpu * 1e9:6,.0f} ns of this process's CPU per image"
        )


if __name__ == "__main__":
    main()
