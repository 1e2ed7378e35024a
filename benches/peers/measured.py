"""Peers as `worker.py` drives them: they measure themselves for some seconds."""

import multiprocessing
import os
import pathlib
import threading
import time

import numpy as np

from policy import BATCH


def cpu_seconds_of(process):
    """Processor time of another process so far, all its threads, to a hundredth of a second."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_with_parent():
    """Ends this process when the one that started it is gone, however it went."""
    def watch():
        multiprocessing.parent_process().join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def measure(seconds, batches, processes=()):
    """Takes batches, which are counted by their length, for so many seconds of wall time.

    Answers images, seconds of wall time, and seconds of processor time of this process and of
    others that work for it.
    """
    def cpu():
        return time.process_time() + sum(cpu_seconds_of(process) for process in processes)

    wall, cpu_before, images = time.perf_counter(), cpu(), 0
    for batch in batches:
        images += len(batch)
        now = time.perf_counter()
        if now - wall >= seconds:
            break
    return {"images": images, "cpu_seconds": cpu() - cpu_before, "wall_seconds": now - wall}


def index_batches(count, seed=1):
    """Full batches of shuffled indices, epoch after epoch, for ever."""
    if count < BATCH:
        raise ValueError(f"{count} pictures are less than a batch of {BATCH}")
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(count)
        yield from order[: count // BATCH * BATCH].reshape(-1, BATCH)


def compared(augment, op, level, sign, column, row, picture):
    """One op of a peer on one picture, as `compare.py` asks for it."""
    call = (op, int(level), int(sign), int(column), int(row))
    rgb, mask = augment.apply(call, augment.pictures[int(picture)])
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    if mask is not None:
        alpha[~mask] = 0
    return {"rgba": np.dstack([rgb, alpha]).tobytes().hex(), "has_mask": mask is not None}


class Measured:
    """A peer that augments in this process."""

    def __init__(self, augment):
        self.augment = augment
        # One buffer for all batches, as a program has that sends them on.
        out = np.zeros((BATCH, *augment.blank.shape), np.uint8)
        self.batches = (augment.batch(indices, out) for indices in index_batches(len(augment.pictures)))

    def measure(self, seconds):
        return measure(seconds, self.batches)

    def apply(self, op, level, sign, column, row, picture):
        return compared(self.augment, op, level, sign, column, row, picture)
