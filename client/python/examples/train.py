"""An epoch loop as a trainer would write it, on the built-in dataset.

    pba serve &
    python client/python/examples/train.py --epochs 3

In place of a network, `train_step` fits a linear classifier with numpy, so that the example needs
nothing else. It learns nothing of use: the built-in pictures differ in shape only, which no linear
classifier sees, and its loss stays near ln(10) = 2.303. At the end, and on Ctrl-C, the position is
written to --checkpoint; run it again with the same one to go on with the very next batch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from pba_client import Batch, Loader


def train_step(weights: np.ndarray, batch: Batch, mean: np.ndarray, std: np.ndarray) -> float:
    """One step of stochastic gradient descent; the batch's loss."""
    pixels = (batch.image[:, ::4, ::4] / np.float32(255) - mean) / std
    inputs = pixels.reshape(len(batch), -1)
    logits = inputs @ weights
    logits -= logits.max(1, keepdims=True)
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(1, keepdims=True)
    rows = np.arange(len(batch))
    loss = -np.log(probabilities[rows, batch.label] + 1e-9).mean()
    probabilities[rows, batch.label] -= 1
    weights -= 0.01 / len(batch) * (inputs.T @ probabilities)
    return float(loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="the server; by default that of PBA_SERVER, or http://127.0.0.1:8080")
    parser.add_argument("--dataset", default="shapes")
    parser.add_argument("--schedule", default="cifar10-pba")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, help="file to keep the position in")
    args = parser.parse_args()

    loader = Loader(args.url, args.dataset, args.schedule, args.epochs, batch_size=128)
    if args.checkpoint and args.checkpoint.exists():
        loader.load_state_dict(json.loads(args.checkpoint.read_text()))
    first_epoch = loader.state_dict()["epoch"]

    weights = np.zeros((8 * 8 * 3, len(loader.classes)), np.float32)  # a real trainer saves these too
    try:
        for number in range(first_epoch, args.epochs):
            start, images, losses = time.perf_counter(), 0, [0.0]
            with loader.epoch(number) as epoch:
                for batch in epoch:
                    losses.append(train_step(weights, batch, loader.mean, loader.std))
                    images += len(batch)
            seconds = time.perf_counter() - start
            waited = epoch.waited_seconds
            blame = "the trainer waited for data" if waited > seconds / 10 else "the data waited for the trainer"
            print(
                f"epoch {number}: {images:,} images in {seconds:.2f} s, {images / seconds:,.0f} images/s; "
                f"waited {waited:.2f} s for batches: {blame}; loss {np.mean(losses[-20:]):.3f}"
            )
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        if args.checkpoint:
            args.checkpoint.write_text(json.dumps(loader.state_dict()))


if __name__ == "__main__":
    main()
