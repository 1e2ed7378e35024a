"""How fast does the client read, beside a raw socket and beside what one would write without it?

Reads the same epochs of untouched pixels (the built-in dataset, 10,000 images of 32x32) in several
ways, in turns within one run, and prints images/s with each one's ratio to two of the ways:

- raw: ``recv_into`` one reused buffer, nothing looked at; what no client can beat;
- five lines: ``http.client`` and ``pyarrow.ipc.open_stream``; what one would write without this
  package, and what it must not be slower than;
- Client and Loader as they are, and Client without a thread and with one.

At a ``unix:PATH`` URL, the raw read is of a Unix socket, pba_client reads from it as well, and
through the memory that the server shares; the five lines are left out.

With ``--replay``, the answer is recorded once and then sent from memory by a process of this
script, so that the kernel's copying and not the server is the limit. Loader is left out then.

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
from typing import Callable, Dict
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from pba_client import Client, Epoch, Loader

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
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        total = 0
        while count := sock.recv_into(buffer):
            total += count
    return total


def by_pba(epoch: Epoch) -> None:
    rows = 0
    for batch in epoch:
        rows += len(batch.image)
    assert rows == IMAGES, rows


def by_five_lines(url: str, epoch: int, batch_size: int) -> None:
    rows = 0
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", TARGET.format(epoch, batch_size))
    with connection.getresponse() as response:
        for batch in pa.ipc.open_stream(pa.PythonFile(response)):
            rows += len(batch.column("image").to_numpy_ndarray())
    connection.close()
    assert rows == IMAGES, rows


def replay(url: str, batch_size: int, ready) -> None:  # type: ignore[no-untyped-def]
    """Records the answer to one request, then gives it to everyone who connects."""
    pieces = []
    with connect(url) as sock:
        target = TARGET.format(0, batch_size)
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
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
    size = args.batch_size

    def client(**options) -> Callable[[int], None]:  # type: ignore[no-untyped-def]
        made = Client(url, **options)
        return lambda epoch: by_pba(made.epoch("shapes", epoch, schedule="identity", batch_size=size))

    ways: Dict[str, Callable[[int], None]] = {"raw socket": lambda epoch: raw(url, epoch, size, buffer)}
    if url.startswith("unix:"):
        ways["Client, shared memory"] = client()
    else:
        ways["five lines"] = lambda epoch: by_five_lines(url, epoch, size)
    ways["Client"] = client(shared_memory=False)
    if not args.replay:
        loader = Loader(url, "shapes", "identity", batch_size=size, shared_memory=False)
        ways["Loader"] = lambda epoch: by_pba(loader.epoch(epoch))
    for prefetch in (0, 2):
        ways[f"Client, prefetch={prefetch}"] = client(shared_memory=False, prefetch=prefetch)
    seconds: dict = {name: [] for name in ways}
    # Of this process, both of its threads and the kernel's part: what a busy machine cannot blur.
    cpu_seconds: dict = {name: [] for name in ways}
    for round_number in range(args.rounds + 1):
        # To and fro, so that none always comes after the same one.
        for name, way in list(ways.items())[:: 1 if round_number % 2 else -1]:
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
    for name, values in seconds.items():
        rate = args.epochs * IMAGES / statistics.median(values)
        # Rounds are compared one by one, because the machine's speed wanders.
        ratios = [
            f"{statistics.median(b / v for b, v in zip(seconds[base], values)):5.2f} of {base}"
            for base in ("raw socket", "five lines")
            if base in seconds
        ]
        cpu = statistics.median(cpu_seconds[name]) / (args.epochs * IMAGES)
        print(
            f"{name:22} {rate:12,.0f} images/s   {'   '.join(ratios)}   "
            f"{cpu * 1e9:6,.0f} ns of this process's CPU per image"
        )


if __name__ == "__main__":
    main()
