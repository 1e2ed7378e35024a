"""Lightning: its Trainer, with a data module that keeps the position in each checkpoint.

    python client/python/examples/train_lightning.py --epochs 3 --ranks 2
"""

from __future__ import annotations

from typing import Any, Dict

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from recipe import digest, network, options, record
from torch.utils.data import DataLoader

from pba_client.torch import EpochDataset


class Batches(lightning.LightningDataModule):
    def __init__(self, args: Any) -> None:
        super().__init__()
        self.dataset = EpochDataset(
            args.url,
            args.dataset,
            args.schedule,
            args.epochs,
            args.batch_size,
            drop_last=True,
            channels_first=True,
            as_dict=True,
        )
        self.workers = args.workers

    def train_dataloader(self) -> Any:
        # Each loop reads the next epoch, and each rank its part: there is no sampler to set an epoch of.
        return DataLoader(self.dataset, batch_size=None, num_workers=self.workers)

    def state_dict(self) -> Dict[str, Any]:
        return self.dataset.state_dict()

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        self.dataset.load_state_dict(state_dict)


class Classifier(lightning.LightningModule):
    def __init__(self, args: Any, dataset: EpochDataset) -> None:
        super().__init__()
        self.args = args
        self.model = network(dataset)

    def training_step(self, batch: Dict[str, torch.Tensor], _: int) -> torch.Tensor:
        record(self.args.record, self.current_epoch, self.global_rank, batch)
        return torch.nn.functional.cross_entropy(self.model(batch["image"]), batch["label"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


def main() -> None:
    args = options(__doc__)
    data = Batches(args)
    saving = ModelCheckpoint(args.checkpoint, every_n_train_steps=args.save_every, save_last=True, save_top_k=0)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        devices=args.ranks,
        callbacks=[saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    classifier = Classifier(args, data.dataset)
    last = args.checkpoint / "last.ckpt"
    trainer.fit(classifier, data, ckpt_path=last if last.exists() else None)
    if trainer.is_global_zero:
        print("weights", digest(classifier.parameters()))


if __name__ == "__main__":
    main()
