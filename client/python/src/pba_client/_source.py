"""The source of an epoch's batches: a thread that reads ahead, or the reader itself."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import Tuple, Union

from ._batch import Batch
from ._progress import Progress
from ._reader import Reader

# A thread that is told to stop does so at once, unless it waits for a connection.
JOIN_SECONDS = 2.0
# A wait with a bound, whatever it is, ends with Ctrl-C under every handler of the signal; polars installs one
# under which others go on.
WAIT_SECONDS = 3600.0

# The number of batches before a batch, or before an error or the end in its place.
Item = Tuple[int, Union[Batch, BaseException, None]]


class Prefetch:
    """A thread that reads ahead of a loop, by at most ``depth`` batches.

    Two queues written in C carry batches one way and permits the other way: the thread takes a
    permit for each batch, so it holds no more than there are permits. It has no reference to the
    epoch, which is collected once no other object has one.
    """

    def __init__(self, reader: Reader, progress: Progress, depth: int) -> None:
        self.reader = reader
        self._progress = progress
        self._batches: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(depth):
            self._permits.put(True)
        self._thread = threading.Thread(target=self._read_ahead, name="pba-client-prefetch", daemon=True)
        self._thread.start()

    def next(self) -> Item:
        try:
            while True:
                with suppress(queue.Empty):
                    return self._batches.get(timeout=WAIT_SECONDS)
        finally:
            # Given back even on an interrupt, or the thread would wait for it forever.
            self._permits.put(True)

    def stop(self) -> None:
        self._permits.put(False)
        self.reader.canceller.stop()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def _read_ahead(self) -> None:
        reader = self.reader
        try:
            while True:
                before = time.perf_counter()
                if not self._permits.get():
                    return
                self._progress.server_waited_seconds += time.perf_counter() - before
                item = reader.next()
                self._batches.put(item)
                if item[1] is None:
                    return
                del item  # it is the loop's now, and must not live until the next one is read
        except BaseException as error:
            self._batches.put((reader.received, error))
        finally:
            reader.drop()


class Direct:
    """Reads in the loop's own thread, which holds a lock while it calls ``next``."""

    def __init__(self, reader: Reader, lock: "threading.RLock") -> None:
        self.reader = reader
        self._lock = lock
        self._reading = False

    def next(self) -> Item:
        self._reading = True
        try:
            return self.reader.next()
        finally:
            self._reading = False

    def stop(self) -> None:
        # A reading thread is woken, and closes its connection.
        self.reader.canceller.stop()
        if self._lock.acquire(timeout=JOIN_SECONDS):
            try:
                # We are still reading only in a signal's handler, which interrupted a read.
                if not self._reading:
                    self.reader.drop()
            finally:
                self._lock.release()
