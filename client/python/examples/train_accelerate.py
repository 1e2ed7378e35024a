"""Hugging Face Accelerate, with any number of processes.

    accelerate launch --num_processes 2 client/python/examples/train_accelerate.py --epochs 3

or, without GPUs, torchrun --nproc-per-node 2 in place of accelerate launch.

The loader is not given to prepare(): each rank reads its part of the epoch already.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from recipe import digest, network, options, record

from pba_client.torch import EpochDataset, prefetch


def main() -> None:
    args = options(__doc__)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    dataset = EpochDataset(
        args.url, args.dataset, args.schedule, args.epochs, args.batch_size, drop_last=True, as_dict=True
    )
    model = network(dataset)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9))
    # Saved and loaded with the model.
    accelerator.register_for_checkpointing(dataset)
    latest = args.checkpoint / "latest"
    if latest.exists():
        accelerator.load_state(str(args.checkpoint / latest.read_text()))

    step = 0
    for epoch in range(dataset.epoch, args.epochs):
        for batch in prefetch(dataset, accelerator.device):
            loss = torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            record(args.record, epoch, accelerator.process_index, batch)
            step += 1
            if step % args.save_every == 0:
                name = f"{epoch}-{dataset.state_dict()['samples']}"
                accelerator.save_state(str(args.checkpoint / name))
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    partial = args.checkpoint / "latest.partial"
                    partial.write_text(name)
                    partial.replace(latest)
    accelerator.print("weights", digest(accelerator.unwrap_model(model).parameters()))
    accelerator.end_training()


if __name__ == "__main__":
    main()
