"""Train a tiny language model with transformers.Trainer, and continue it after a kill.

Start the program again after it was killed. The training continues at its last checkpoint, as the same run.
"""

from __future__ import annotations

import argparse
import os

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from pte_tracking.integrations.transformers import TrackingCallback

CONFIG = GPT2Config(vocab_size=16, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None)


class Counting(Dataset[dict[str, torch.Tensor]]):
    """Sequences of consecutive numbers."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.arange(index, index + 8) % 16
        return {"input_ids": tokens, "labels": tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="result", help="run directory")
    parser.add_argument("--sinks", nargs="+", default=["json"], help="names of sinks")
    parser.add_argument("--max-steps", type=int, default=24)
    options = parser.parse_args()

    arguments = TrainingArguments(
        options.out,
        report_to="none",  # TrackingCallback logs the metrics.
        max_steps=options.max_steps,
        per_device_train_batch_size=8,
        learning_rate=0.01,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=4,
        save_steps=4,
        save_total_limit=2,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        GPT2LMHeadModel(CONFIG),
        arguments,
        train_dataset=Counting(),
        eval_dataset=Counting(),
        callbacks=[TrackingCallback(options.out, sinks=options.sinks, params={"data": "counting"})],
    )
    checkpoint = get_last_checkpoint(options.out) if os.path.isdir(options.out) else None
    trainer.train(resume_from_checkpoint=checkpoint)


if __name__ == "__main__":
    main()
