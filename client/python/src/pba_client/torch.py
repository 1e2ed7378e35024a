"""The batches of a training run as a PyTorch ``IterableDataset``.

>>> from torch.utils.data import DataLoader  # doctest: +SKIP
>>> from pba_client.torch import EpochDataset  # doctest: +SKIP
>>> dataset = EpochDataset("http://127.0.0.1:8080", "shapes", "cifar10-pba", 200)  # doctest: +SKIP
>>> for epoch in range(200):  # doctest: +SKIP
...     dataset.set_epoch(epoch)
...     for image, label in DataLoader(dataset, batch_size=None):
...         ...

Needs torch, which the rest of the package does not.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Optional, Sequence, Tuple, Union

import torch
from torch.utils.data import IterableDataset, get_worker_info

from ._batch import Batch
from ._loader import Loader

__all__ = ["EpochDataset", "tensors"]

_Tensors = Union[Tuple[torch.Tensor, torch.Tensor], Dict[str, torch.Tensor]]


def tensors(batch: Batch) -> Dict[str, torch.Tensor]:
    """The arrays of a batch as tensors on the same memory: nothing is copied.

    Returns:
        ``image`` uint8 [N, H, W, 3], ``label`` int64 [N], and ``index`` int64 [N] (torch computes
        little with uint64, and no dataset has 2**63 samples).
    """
    return {
        "image": torch.from_numpy(batch.image),
        "label": torch.from_numpy(batch.label),
        "index": torch.from_numpy(batch.index.view("i8")),
    }


class EpochDataset(IterableDataset):
    """Yields the batches of one epoch after another; pass it to a DataLoader with
    ``batch_size=None``, or loop over it directly.

    Each rank of ``torch.distributed``, where that is initialised, reads its part of the epoch.
    Worker w of n of a DataLoader reads batches start+w, start+w+n, ...; the DataLoader takes
    them in turns, so that the order of batches is the same for any number of workers.

    Args:
        url, dataset, schedule, epochs, batch_size: as for ``pba_client.Loader``.
        rank, world_size: by default those of ``torch.distributed``, or 0 and 1.
        channels_first: yield float32 [N, 3, H, W], normalised by the dataset's mean and standard
            deviation, instead of uint8 [N, H, W, 3]. This costs a pass over the pixels; on a GPU
            it is cheaper there.
        as_dict: yield dictionaries with ``image``, ``label`` and ``index`` instead of pairs.
        **options: further arguments of ``Loader``.

    Raises:
        RefusedError: when the server refuses the parameters.
        UnreachableError: when no server can be reached.
    """

    def __init__(
        self,
        url: Union[str, Sequence[str]],
        dataset: str,
        schedule: Optional[str] = None,
        epochs: Optional[int] = None,
        batch_size: int = 128,
        *,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
        channels_first: bool = False,
        as_dict: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if distributed else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if distributed else 1
        self.loader = Loader(
            url, dataset, schedule, epochs, batch_size, rank=rank, world_size=world_size, **options
        )
        self._channels_first = channels_first
        self._as_dict = as_dict
        # In shared memory, so that persistent workers see the new epoch.
        self._position = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the epoch that the next loop reads.

        Args:
            epoch: epoch, 0-based.
            start: first batch, to continue in the middle of an epoch: how many batches of it
                were trained on.
        """
        self._position[0], self._position[1] = epoch, start

    def __len__(self) -> int:
        """Batches of this rank from the chosen start to the end of the epoch."""
        return max(0, len(self.loader) - int(self._position[1]))

    def __iter__(self) -> Iterator[_Tensors]:
        epoch, start = self._position.tolist()
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if start + worker > len(self.loader):
            return  # more workers than batches: nothing is left for this one
        with self.loader.epoch(epoch, start=start + worker, step=workers) as batches:
            for batch in batches:
                yield self._convert(batch)

    def _convert(self, batch: Batch) -> _Tensors:
        converted = tensors(batch)
        if self._channels_first:
            # uint8 [N, H, W, 3] -> float32 [N, 3, H, W], (pixel / 255 - mean) / std. A channel that never changes in
            # the training split would be divided by zero; the server's searches have this bound, too.
            mean = torch.from_numpy(self.loader.mean).view(1, 3, 1, 1)
            std = torch.from_numpy(self.loader.std).clamp(min=1 / 255).view(1, 3, 1, 1)
            planes = converted["image"].permute(0, 3, 1, 2)
            planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
            converted["image"] = planes.mul_(1 / (255 * std)).sub_(mean / std)
        return converted if self._as_dict else (converted["image"], converted["label"])
