"""Ray Train: a model trained by the workers of a cluster, each of which reads its part of an epoch.

    python client/python/examples/train_ray.py --epochs 3 --ranks 2
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Dict

import ray
import torch
from ray import train
from ray.train.torch import TorchTrainer, get_device, prepare_model
from recipe import digest, network, options, record

from pba_client.torch import EpochDataset, prefetch


def train_one(args: Dict[str, Any]) -> None:
    """What each worker does. Its rank is that of the process group, which Ray has made."""
    dataset = EpochDataset(
        args["url"], args["dataset"], args["schedule"], args["epochs"], args["batch_size"], drop_last=True, as_dict=True
    )
    model = prepare_model(network(dataset))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    checkpoint = train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder, "state.pt"), map_location=get_device())
        getattr(model, "module", model).load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        dataset.load_state_dict(saved["data"])

    step, rank = 0, train.get_context().get_world_rank()

    def report() -> None:
        """What all workers do together; one of them saves."""
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                # As it was before Ray wrapped it, which it does for several workers only.
                weights = getattr(model, "module", model).state_dict()
                state = {"model": weights, "optimizer": optimizer.state_dict(), "data": dataset.state_dict()}
                torch.save(state, Path(folder, "state.pt"))
                saved = train.Checkpoint.from_directory(folder)
            train.report({"weights": digest(model.parameters())}, checkpoint=saved)

    for epoch in range(dataset.epoch, args["epochs"]):
        for batch in prefetch(dataset, get_device()):
            loss = torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(args["record"], epoch, rank, batch)
            step += 1
            if step % args["save_every"] == 0:
                report()
    report()


def main() -> None:
    args = options(__doc__)
    ray.init(include_dashboard=False)
    args.record = args.record and args.record.resolve()
    trainer = TorchTrainer(
        train_one,
        train_loop_config=vars(args),
        scaling_config=train.ScalingConfig(num_workers=args.ranks, use_gpu=torch.cuda.is_available()),
        # A run of the same name in the same place goes on where that ended.
        run_config=train.RunConfig(name="pba", storage_path=str(args.checkpoint.resolve())),
    )
    print("weights", trainer.fit().metrics["weights"])


if __name__ == "__main__":
    main()
