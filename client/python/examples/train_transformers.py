"""Hugging Face's Trainer, which saves the position in each of its checkpoints.

    torchrun --nproc-per-node 2 client/python/examples/train_transformers.py --epochs 3
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from recipe import digest, network, options, record
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from pba_client.torch import EpochDataset

POSITION = "position.json"


class Classifier(torch.nn.Module):
    """In the form of the models of transformers: a loss comes with the labels."""

    def __init__(self, dataset: EpochDataset, path: Optional[Path]) -> None:
        super().__init__()
        self.model = network(dataset)
        rank = int(os.environ.get("RANK", "0"))
        self.record = lambda batch: record(path, dataset.epoch - 1, rank, batch)

    def forward(self, image: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> Dict[str, torch.Tensor]:
        self.record({"image": image, "index": index})
        logits = self.model(image)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class PbaTrainer(Trainer):
    """Reads an ``EpochDataset``, whose batches and ranks are its own, and resumes where it was."""

    def get_train_dataloader(self) -> Any:
        return DataLoader(
            self.train_dataset,
            batch_size=None,
            collate_fn=lambda batch: {"labels": batch.pop("label"), **batch},
        )

    def train(self, resume_from_checkpoint: Any = None, **arguments: Any) -> Any:
        if resume_from_checkpoint:
            self.train_dataset.load_state_dict(json.loads(Path(resume_from_checkpoint, POSITION).read_text()))
        return super().train(resume_from_checkpoint, **arguments)


class SavePosition(TrainerCallback):
    def __init__(self, dataset: EpochDataset) -> None:
        self.dataset = dataset

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        (folder / POSITION).write_text(json.dumps(self.dataset.state_dict()))


def main() -> None:
    args = options(__doc__)
    dataset = EpochDataset(
        args.url,
        args.dataset,
        args.schedule,
        args.epochs,
        args.batch_size,
        drop_last=True,
        channels_first=True,
        as_dict=True,
    )
    arguments = TrainingArguments(
        output_dir=str(args.checkpoint),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        save_steps=args.save_every,
        learning_rate=0.01,
        # The dataset goes on by itself; to skip batches as well would leave samples out.
        ignore_data_skip=True,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=not torch.cuda.is_available(),
    )
    model = Classifier(dataset, args.record)
    trainer = PbaTrainer(model, arguments, train_dataset=dataset, callbacks=[SavePosition(dataset)])
    args.checkpoint.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(args.checkpoint)))
    if trainer.is_world_process_zero():
        print("weights", digest(model.model.parameters()))


if __name__ == "__main__":
    main()
