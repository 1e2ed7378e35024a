"""JAX: an iterator in the manner of grain's, whose state is kept beside the weights.

    python client/python/examples/train_jax.py --epochs 3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any, Dict

import jax
import jax.numpy as jnp

from pba_client import BatchIterator, Loader


def loss(weights: Dict[str, jax.Array], image: jax.Array, label: jax.Array) -> jax.Array:
    """The loss of a linear classifier, for pixels that were normalised."""
    logits = image.reshape(len(image), -1) @ weights["w"] + weights["b"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(label)), label])


@jax.jit
def step(weights: Any, image: jax.Array, label: jax.Array, mean: jax.Array, std: jax.Array) -> Any:
    """One step of stochastic gradient descent. Pixels travel to the device as bytes."""
    pixels = (image.astype(jnp.float32) / 255 - mean) / std
    gradients = jax.grad(loss)(weights, pixels, label)
    return jax.tree.map(lambda value, gradient: value - 0.01 * gradient, weights, gradients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--dataset", default="shapes")
    parser.add_argument("--schedule", default="cifar10-pba")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint"))
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--record", type=Path, help="file to append the indices of each batch to")
    args = parser.parse_args()

    # In a job of several processes, rank= and world_size= give each of them its part of an epoch.
    loader = Loader(args.url, args.dataset, args.schedule, args.epochs, args.batch_size, drop_last=True)
    batches = BatchIterator(loader, args.epochs)
    weights = {"w": jnp.zeros((32 * 32 * 3, len(loader.classes))), "b": jnp.zeros(len(loader.classes))}
    if args.checkpoint.exists():
        saved = pickle.loads(args.checkpoint.read_bytes())
        weights = jax.device_put(saved["weights"])
        batches.set_state(saved["batches"])

    # A channel that never changes would be divided by zero.
    std = loader.std.clip(min=1 / 255)
    for number, batch in enumerate(batches, 1):
        weights = step(weights, batch.image, batch.label, loader.mean, std)
        if args.record:
            pixels = [zlib.crc32(image.tobytes()) for image in batch.image]
            line = {"epoch": batches.epoch, "rank": 0, "index": batch.index.tolist(), "pixels": pixels}
            with args.record.open("a") as record:
                record.write(json.dumps(line) + "\n")
        if number % args.save_every == 0:
            partial = args.checkpoint.with_suffix(".partial")
            partial.write_bytes(pickle.dumps({"weights": jax.device_get(weights), "batches": batches.get_state()}))
            os.replace(partial, args.checkpoint)
    values = jax.device_get(weights)
    print("weights", hashlib.sha256(values["w"].tobytes() + values["b"].tobytes()).hexdigest())


if __name__ == "__main__":
    main()
