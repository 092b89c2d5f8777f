"""The script examples/porting/plain.py with Lightning: CSV, TensorBoard, MLflow, checkpoints, and resume."""

from __future__ import annotations

import argparse

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from sklearn.datasets import load_digits
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset, random_split


class Net(L.LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.conv = nn.Conv2d(1, 32, 3, padding=1)
        self.hidden = nn.Linear(512, 64)
        self.output = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.conv(image)), 2).flatten(1)
        scores: Tensor = self.output(F.dropout(F.relu(self.hidden(features)), 0.25, self.training))
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        image, label = batch
        loss = F.cross_entropy(self(image), label)
        self.log("train/loss", loss, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        image, label = batch
        output = self(image)
        self.log("test/loss", F.cross_entropy(output, label), prog_bar=True)
        self.log("test/accuracy", (output.argmax(1) == label).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optim.Adam(self.parameters(), lr=self.hparams["lr"])
        scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()

    torch.manual_seed(0)
    data, target = load_digits(return_X_y=True)
    images = torch.tensor(data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    train_set, test_set = random_split(TensorDataset(images, torch.tensor(target)), [0.8, 0.2])
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=256)

    trainer = L.Trainer(
        max_epochs=args.epochs,
        logger=[CSVLogger("result"), TensorBoardLogger("result"), MLFlowLogger("digits")],
        callbacks=[ModelCheckpoint("result", monitor="step", mode="max", save_top_k=1, save_last=True)],
    )
    trainer.fit(Net(args.lr), train_loader, test_loader, ckpt_path="last")


if __name__ == "__main__":
    main()
