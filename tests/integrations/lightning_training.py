"""Train with Lightning until the process is killed at a step: python lightning_training.py RUN_DIR STEP"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pte_tracking.integrations.lightning import TrackingLogger


class Model(LightningModule):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.layer(batch).pow(2).mean()
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val/loss", self.layer(batch).pow(2).mean())

    def test_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("test/loss", self.layer(batch).pow(2).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class At(Callback):
    """Callback that calls a function after a step."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            self.action()


def data() -> torch.utils.data.DataLoader[torch.Tensor]:
    rows: Any = torch.arange(16.0).reshape(8, 2) / 16
    return torch.utils.data.DataLoader(rows, batch_size=2)


def trainer(logger: TrackingLogger | bool, *callbacks: Callback, **options: Any) -> Trainer:
    options = {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", **options}
    return Trainer(
        logger=logger, callbacks=[*callbacks], enable_progress_bar=False, enable_model_summary=False, **options
    )


def main(directory: str, step: str) -> None:
    torch.manual_seed(0)
    kill = At(int(step), lambda: os.kill(os.getpid(), signal.SIGKILL))
    checkpoint = ModelCheckpoint(monitor="val/loss", save_top_k=2, save_last=True)
    logger = TrackingLogger(directory, sinks=["json", "tensorboard"])
    trainer(logger, checkpoint, kill, max_epochs=3).fit(Model(), data(), data(), ckpt_path="last")


if __name__ == "__main__":
    main(*sys.argv[1:])
