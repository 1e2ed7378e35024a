"""PyTorch's DataLoader with worker processes around a peer that augments.

`torch_loader:pillow_best,2` has two workers; `torch_loader:untouched,1,1` has one, on core 1. At its best: a worker fetches a whole batch at once
(`__getitems__`), and hands it over as one tensor in shared memory; workers persist.
"""

import importlib
import itertools
import os
import warnings

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from measured import index_batches, measure

torch.set_num_threads(1)
# Two workers on one core is what is asked for.
warnings.filterwarnings("ignore", message="This DataLoader will create")
PREFETCH = 2
around = []


def versions():
    return ", ".join([f"torch {torch.__version__}", *(peer.versions() for peer in around)])


class Pictures(Dataset):
    def __init__(self, augment):
        self.augment = augment

    def __len__(self):
        return len(self.augment.pictures)

    def __getitems__(self, indices):
        # Written where the training process will read it.
        batch = torch.empty((len(indices), *self.augment.pictures.shape[1:]), dtype=torch.uint8).share_memory_()
        self.augment.batch(indices, batch.numpy())
        return batch


class Loader:
    def __init__(self, augment, workers, cores=None):
        def reseed(worker):
            if cores:
                os.sched_setaffinity(0, cores)
            # A fork copies the generator; without this all workers would draw the same.
            generator = np.random.default_rng(worker)
            augment.generator.bit_generator.state = generator.bit_generator.state

        self.loader = iter(DataLoader(
            Pictures(augment), batch_sampler=index_batches(len(augment.pictures)), num_workers=workers,
            collate_fn=lambda batch: batch, prefetch_factor=PREFETCH, persistent_workers=True,
            multiprocessing_context="fork", worker_init_fn=reseed))
        self.ahead = PREFETCH * workers
        self.processes = [process.pid for process in self.loader._workers]
        next(self.loader)

    def measure(self, seconds):
        # What the workers made while others were measured does not count.
        for _ in itertools.islice(self.loader, self.ahead):
            pass
        return measure(seconds, self.loader, self.processes)


def start(way, arguments):
    module, workers, *cores = way.split(",")
    peer = importlib.import_module(module)
    around.append(peer)
    return Loader(peer.Augment(*arguments), int(workers), {int(core) for core in cores})
