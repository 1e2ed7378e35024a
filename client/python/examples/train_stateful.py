"""torchdata's StatefulDataLoader, with worker processes; its state is saved in the middle of an epoch.

    python client/python/examples/train_stateful.py --epochs 3 --workers 2
"""

from __future__ import annotations

import torch
from recipe import digest, network, options, record, save
from torchdata.stateful_dataloader import StatefulDataLoader

from pba_client.torch import EpochDataset, prefetch


def main() -> None:
    args = options(__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = EpochDataset(args.url, args.dataset, args.schedule, args.epochs, args.batch_size, as_dict=True)
    # The dataset yields batches, so that the loader must not make any: batch_size=None.
    loader = StatefulDataLoader(dataset, batch_size=None, num_workers=args.workers)
    model = network(dataset).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    if args.checkpoint.exists():
        saved = torch.load(args.checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])

    step = 0
    for epoch in range(dataset.epoch, args.epochs):
        for batch in prefetch(loader, device):
            loss = torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(args.record, epoch, 0, batch)
            step += 1
            if step % args.save_every == 0:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "loader": loader.state_dict(),
                }
                save(args.checkpoint, state)
    print("weights", digest(model.parameters()))


if __name__ == "__main__":
    main()
