"""What the recipes share: options, a small network, a checkpoint that is never half written, and a record of what was
read, by which their test compares a run that was killed and resumed with one that was not."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, Dict, Iterable

import torch

from pba_client.torch import EpochDataset


def options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--dataset", default="shapes")
    parser.add_argument("--schedule", default="cifar10-pba")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128, help="images per batch of each rank")
    parser.add_argument("--workers", type=int, default=0, help="workers of a DataLoader, where there is one")
    parser.add_argument("--ranks", type=int, default=1, help="processes that train, where the recipe starts them")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint"), help="file or folder to resume from")
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--record", type=Path, help="file to append the indices of each batch to")
    return parser.parse_args()


def network(dataset: EpochDataset) -> torch.nn.Module:
    """A small network for pictures of 32x32, the same in every process."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=4, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 8 * 8, len(dataset.classes)),
    )


def save(path: Path, state: Any) -> None:
    """Saves a checkpoint; one that is interrupted leaves the last."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def record(path: "Path | None", epoch: int, rank: int, batch: Dict[str, Any]) -> None:
    """Appends what was read: the samples of a batch, and a checksum of the pixels of each."""
    if path is None:
        return
    pixels = [zlib.crc32(image.tobytes()) for image in batch["image"].cpu().numpy()]
    line = json.dumps({"epoch": epoch, "rank": rank, "index": batch["index"].tolist(), "pixels": pixels})
    # In one piece, whatever other ranks append.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def digest(parameters: Iterable[torch.Tensor]) -> str:
    """A digest of weights, to compare runs by."""
    found = hashlib.sha256()
    for values in parameters:
        found.update(values.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
