"""Train with Lightning: python lightning_loop.py [--resume]"""

from __future__ import annotations

import argparse

import torch
from digits import digits, network
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.nn import functional as F

from pte_tracking.integrations.lightning import TrackingLogger


class Classifier(LightningModule):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = network()

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        output = self.network(batch[0])
        self.log("val/loss", F.cross_entropy(output, batch[1]))
        self.log("val/accuracy", (output.argmax(1) == batch[1]).float().mean())

    def on_validation_epoch_end(self) -> None:
        self.logger.experiment.log_histogram("weights", next(self.network.parameters()), self.trainer.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.hparams["lr"], momentum=0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)  # more threads are slower for a small network
    torch.manual_seed(0)
    train, val = digits()
    trainer = Trainer(
        logger=TrackingLogger("result", sinks=["json", "tensorboard"], params={"epochs": args.epochs}),
        callbacks=[ModelCheckpoint(monitor="val/loss", save_last=True), LearningRateMonitor()],
        max_epochs=args.epochs,
        log_every_n_steps=15,
        accelerator="cpu",
    )
    trainer.fit(Classifier(), train, val, ckpt_path="last" if args.resume else None)


if __name__ == "__main__":
    main()
