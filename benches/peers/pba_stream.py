"""Batches that reach one Python process over a connection of this machine.

`pba_stream:WAY,URL,LOCAL_URL,DATASET,PROCESS` reads from the server whose process is PROCESS, again
and again the last epoch of the paper's CIFAR-10 schedule:

- `client`: with the Python client;
- `identity`: the same, of untouched pixels;
- `raw`: the bytes of an answer to `identity`, sent from memory by a process that does nothing else,
  and read into one buffer that is never looked at;
- `raw-hot`: the same with the first 256 KiB of the answer again and again, which stay in the cache as
  a server's buffers may.

Each is over TCP, or with `-unix` over a Unix socket; `client-memory` and `identity-memory` are through
memory that the server shares. The number of a batch's images is all that is looked at.
"""

import multiprocessing
import os
import socket
import tempfile
from urllib.parse import urlsplit

import numpy as np
import pyarrow

import pba_client
from measured import measure

EPOCH = 199
BUFFER_BYTES = 1 << 18


def versions():
    return f"pba_client {pba_client.__version__}, pyarrow {pyarrow.__version__}, NumPy {np.__version__}"


class Stream:
    def __init__(self, url, dataset, process, schedule, memory):
        self.client = pba_client.Client(url, shared_memory=memory)
        self.request = {"schedule": schedule, "base": "identity" if schedule == "identity" else None}
        self.dataset, self.process, self.memory = dataset, int(process), memory

    def images(self):
        while True:
            with self.client.epoch(self.dataset, EPOCH, **self.request) as epoch:
                assert epoch.shares_memory == self.memory, "not the way that was asked for"
                for batch in epoch:
                    yield batch.image

    def measure(self, seconds):
        images = self.images()
        next(images)
        measured = measure(seconds, images, [self.process])
        images.close()
        return measured


def send_for_ever(answer, address, cores, path):
    os.sched_setaffinity(0, cores)
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as server:
        server.bind(path or ("127.0.0.1", 0))
        server.listen()
        address.send(server.getsockname())
        while True:
            peer, _ = server.accept()
            with peer:
                try:
                    while True:
                        peer.sendall(answer)
                except OSError:
                    pass


class Raw:
    def __init__(self, url, dataset, process, local, hot):
        target = f"/v1/datasets/{dataset}/epochs/{EPOCH}/batches?schedule=identity"
        parts = urlsplit(url)
        pieces = []
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(
                f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            while piece := connection.recv(BUFFER_BYTES):
                pieces.append(piece)
        answer = b"".join(pieces)
        with pba_client.Client(url).epoch(dataset, EPOCH, schedule="identity") as epoch:
            rows = sum(len(batch) for batch in epoch)
        self.bytes_per_image = len(answer) / rows
        if hot:
            answer = answer[:BUFFER_BYTES]
        # Where the server runs, so that sender and reader have the cores that server and client have.
        receive, send = multiprocessing.Pipe(duplex=False)
        cores = os.sched_getaffinity(int(process))
        self.folder = tempfile.TemporaryDirectory(prefix="pba-raw-")
        path = f"{self.folder.name}/raw.sock" if local else None
        self.sender = multiprocessing.Process(target=send_for_ever, args=(answer, send, cores, path), daemon=True)
        self.sender.start()
        self.address = receive.recv()
        self.buffer = memoryview(bytearray(BUFFER_BYTES))

    def reads(self, connection):
        while count := connection.recv_into(self.buffer):
            yield self.buffer[:count]

    def measure(self, seconds):
        with socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET) as connection:
            connection.connect(self.address)
            reads = self.reads(connection)
            next(reads)
            measured = measure(seconds, reads, [self.sender.pid])
        return {**measured, "images": measured["images"] / self.bytes_per_image}


def start(way, arguments):
    way, url, local_url, dataset, process = way.split(",")
    kind, *how = way.split("-")
    if kind == "raw":
        return Raw(url, dataset, process, local="unix" in how, hot="hot" in how)
    memory = "memory" in how
    schedule = "identity" if kind == "identity" else "cifar10-pba"
    return Stream(local_url if memory or "unix" in how else url, dataset, process, schedule, memory)
