"""Several processes, one model: DistributedDataParallel, started by torchrun.

    torchrun --nproc-per-node 2 client/python/examples/train_ddp.py --epochs 3

Rank 0 saves one checkpoint, which every rank loads; another number of ranks goes on with the samples that are left.
"""

from __future__ import annotations

import torch
from recipe import digest, network, options, record, save
from torch.nn.parallel import DistributedDataParallel

from pba_client.torch import EpochDataset, prefetch


def main() -> None:
    args = options(__doc__)
    on_gpu = torch.cuda.is_available()
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    rank = torch.distributed.get_rank()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    # Each rank reads its part. With drop_last, all have the same number of batches, which DDP needs.
    dataset = EpochDataset(
        args.url, args.dataset, args.schedule, args.epochs, args.batch_size, drop_last=True, as_dict=True
    )
    network_ = network(dataset).to(device)
    model = DistributedDataParallel(network_)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    if args.checkpoint.exists():
        saved = torch.load(args.checkpoint, map_location=device)
        network_.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        dataset.load_state_dict(saved["data"])

    step = 0
    for epoch in range(dataset.epoch, args.epochs):
        for batch in prefetch(dataset, device):
            loss = torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(args.record, epoch, rank, batch)
            step += 1
            if step % args.save_every == 0 and rank == 0:
                state = {
                    "model": network_.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "data": dataset.state_dict(),
                }
                save(args.checkpoint, state)
    if rank == 0:
        print("weights", digest(network_.parameters()))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
