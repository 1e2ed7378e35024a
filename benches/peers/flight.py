"""Arrow Flight: record batches made before, from a server in a process of its own.

`flight:CORES`, as 0+1, says where the server runs. A batch is as ours: images as a fixed-size list
of bytes, labels, indices. Read as `do_get` gives them, without a copy.
"""

import multiprocessing
import os

import numpy as np
import pyarrow
import pyarrow.flight

from measured import end_with_parent, measure
from policy import BATCH


def versions():
    return f"pyarrow {pyarrow.__version__} (Flight)"


def serve(file, image_bytes, cores, ready):
    end_with_parent()
    os.sched_setaffinity(0, cores)
    pixels = np.fromfile(file, np.uint8)
    rows = len(pixels) // image_bytes // BATCH * BATCH
    columns = [
        pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(pixels[:rows * image_bytes]), image_bytes),
        pyarrow.array(np.zeros(rows, np.int64)),
        pyarrow.array(np.arange(rows, dtype=np.uint64)),
    ]
    table = pyarrow.table(columns, ["image", "label", "index"])
    batches = table.to_batches(max_chunksize=BATCH)
    reader = pyarrow.RecordBatchReader

    class Server(pyarrow.flight.FlightServerBase):
        def do_get(self, context, ticket):
            return pyarrow.flight.RecordBatchStream(reader.from_batches(table.schema, batches))

    server = Server("grpc://127.0.0.1:0")
    ready.send(server.port)
    server.serve()


class Flight:
    def __init__(self, file, image_bytes, cores):
        receive, send = multiprocessing.Pipe(duplex=False)
        # Spawned, because a fork would copy the threads' locks.
        self.server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(file, image_bytes, cores, send), daemon=True)
        self.server.start()
        self.client = pyarrow.flight.connect(f"grpc://127.0.0.1:{receive.recv()}")

    def images(self):
        while True:
            for chunk in self.client.do_get(pyarrow.flight.Ticket(b"")):
                values = chunk.data.column(0).flatten().to_numpy()
                yield values.reshape(len(chunk.data), -1)

    def measure(self, seconds):
        images = self.images()
        next(images)
        return measure(seconds, images, [self.server.pid])


def start(way, arguments, file):
    return Flight(file, arguments[0][0].size, {int(core) for core in way.split(",")[-1].split("+")})
