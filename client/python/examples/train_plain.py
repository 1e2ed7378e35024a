"""A training loop in plain PyTorch, which resumes in the middle of an epoch.

    python client/python/examples/train_plain.py --epochs 3
"""

from __future__ import annotations

import torch
from recipe import digest, network, options, record, save

from pba_client.torch import EpochDataset, prefetch


def main() -> None:
    args = options(__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = EpochDataset(args.url, args.dataset, args.schedule, args.epochs, args.batch_size, as_dict=True)
    model = network(dataset).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    if args.checkpoint.exists():
        saved = torch.load(args.checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        dataset.load_state_dict(saved["data"])

    step = 0
    for epoch in range(dataset.epoch, args.epochs):
        # Pixels travel as bytes, and are normalised on the device.
        for batch in prefetch(dataset, device):
            loss = torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record(args.record, epoch, 0, batch)
            step += 1
            if step % args.save_every == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "data": dataset.state_dict()}
                save(args.checkpoint, state)
        print(f"epoch {epoch}: loss {loss.item():.3f}", flush=True)
    print("weights", digest(model.parameters()))


if __name__ == "__main__":
    main()
