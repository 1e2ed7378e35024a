"""How fast batches come to a GPU, in several ways that take turns within one run.

    python client/python/benches/prefetch.py URL [--dataset cifar10] [--rounds 5]

`plain` moves each batch when the loop asks for it and normalises it there, `pinned` is a DataLoader with a worker and
pin_memory, `prefetch` is `pba_client.torch.prefetch`, and `headspace` is that with a perfect loader. Each step multiplies
matrices for about as long as a batch takes to come (--work), as a network would. Prints the median images/s of each, and
its ratio to plain.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from typing import Any, Callable, Dict, Iterator, List

import torch
from torch.utils.data import DataLoader

from pba_client.torch import EpochDataset, prefetch


def moved(loader: Any, dataset: EpochDataset, device: torch.device) -> Iterator[torch.Tensor]:
    """What people write by hand."""
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (dataset.mean, dataset.std))
    for image, _ in loader:
        image = image.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
        yield (image / 255 - mean) / std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--dataset", default="shapes")
    parser.add_argument("--schedule", default="cifar10-pba")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=int, default=4, help="matrix products in each step; 0 measures batches alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    device = torch.device(args.device)

    def dataset(**options: Any) -> EpochDataset:
        return EpochDataset(args.url, args.dataset, args.schedule, 200, args.batch_size, **options)

    def images(batches: Any) -> Iterator[torch.Tensor]:
        return (image for image, _ in batches)

    plain, pinned, ahead, perfect = dataset(), dataset(), dataset(), dataset(headspace=True)
    ways: Dict[str, Callable[[], Iterator[torch.Tensor]]] = {
        "plain": lambda: moved(plain, plain, device),
        "pinned": lambda: moved(
            DataLoader(pinned, batch_size=None, num_workers=1, pin_memory=device.type == "cuda"), pinned, device
        ),
        "prefetch": lambda: images(prefetch(ahead, device)),
        "headspace": lambda: images(prefetch(perfect, device)),
    }
    weights = torch.randn(4096, 4096, device=device)
    rates: Dict[str, List[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            count, start = 0, time.perf_counter()
            for image in way():
                for _ in range(args.work):
                    weights @ weights
                count += len(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            rates[name].append(count / (time.perf_counter() - start))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{args.dataset}, batches of {args.batch_size}, {args.rounds} rounds, on {device}")
    for name, rate in middle.items():
        print(f"{name:10} {rate:12,.0f} images/s  {rate / middle['plain']:5.2f}")


if __name__ == "__main__":
    main()
