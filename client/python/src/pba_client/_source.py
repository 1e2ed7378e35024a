"""The source of an epoch's batches: a thread that reads ahead, or the reader itself."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import Tuple, Union

from ._batch import Batch
from ._ipc import Counters
from ._reader import Reader

# A thread that is told to stop does so at once, unless it waits for a connection.
JOIN_SECONDS = 2.0

# Number of forks from the first process to this one: cheaper to check with each batch than the
# process id.
forks = 0

# What goes through the queue: a batch with the count of batches before it, an error, or the end.
Item = Union[Tuple[int, Batch], BaseException, None]


class Prefetch:
    """A thread that reads ahead of a loop, by at most ``depth`` batches.

    Two queues written in C carry batches one way and permits the other way: the thread takes a
    permit for each batch, so it holds no more than there are permits.
    """

    def __init__(self, reader: Reader, counters: Counters, depth: int) -> None:
        self._reader = reader
        self._batches: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(depth):
            self._permits.put(True)
        # Has no reference to its owner, so that an unreferenced epoch is collected.
        self._thread = threading.Thread(
            target=_read_ahead,
            args=(reader, counters, self._batches, self._permits),
            name="pba-client-prefetch",
            daemon=True,
        )
        self._thread.start()

    # With shared memory, nothing has to be fetched ahead.
    shares_memory = False

    def next(self) -> Item:
        try:
            return self._batches.get()
        finally:
            # Given back even on an interrupt, or the thread would wait for it forever.
            self._permits.put(True)

    def stop(self) -> None:
        self._permits.put(False)
        self._reader.canceller.stop()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)


def _read_ahead(
    reader: Reader,
    counters: Counters,
    batches: "queue.SimpleQueue[Item]",
    permits: "queue.SimpleQueue[bool]",
) -> None:
    try:
        while True:
            before = time.perf_counter()
            if not permits.get():
                return
            counters.server_waited_seconds += time.perf_counter() - before
            received = reader.received
            batch = reader.next()
            if batch is None:
                batches.put(None)
                return
            batches.put((received, batch))
            del batch  # it is the loop's now, and must not live until the next one is read
    except BaseException as error:
        batches.put(error)
    finally:
        reader.drop()


class Direct:
    """Reads in the loop's own thread.

    Args:
        reader: where batches come from.
        lock: held by the caller of ``next``.
    """

    def __init__(self, reader: Reader, lock: "threading.RLock") -> None:
        self._reader = reader
        self._lock = lock
        self._reading = False

    @property
    def shares_memory(self) -> bool:
        return self._reader.shares_memory

    def next(self) -> Item:
        self._reading = True
        try:
            received = self._reader.received
            batch = self._reader.next()
            return None if batch is None else (received, batch)
        finally:
            self._reading = False

    def stop(self) -> None:
        # A reading thread is woken, and closes its connection.
        self._reader.canceller.stop()
        if self._lock.acquire(timeout=JOIN_SECONDS):
            try:
                # We are still reading only in a signal's handler, which interrupted a read.
                if not self._reading:
                    self._reader.drop()
            finally:
                self._lock.release()


def stop(pid: int, source: Union[Prefetch, Direct]) -> None:
    # The connection of a forked process still belongs to its parent.
    if os.getpid() == pid:
        source.stop()


def _forked() -> None:
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
