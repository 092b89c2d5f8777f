"""The script plain.py with a JSON log, TensorBoard, MLflow, validation, snapshots, and resume."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset, random_split

import pte_tracking as pte
from pte_tracking import extensions

Batches = Iterable[tuple[Tensor, ...]]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3, padding=1)
        self.hidden = nn.Linear(512, 64)
        self.output = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.conv(image)), 2).flatten(1)
        scores: Tensor = self.output(F.dropout(F.relu(self.hidden(features)), 0.25, self.training))
        return scores


def train(model: nn.Module, loader: Batches, optimizer: optim.Optimizer) -> None:
    model.train()
    for image, label in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})


def test(model: nn.Module, image: Tensor, label: Tensor) -> None:
    output = model(image)
    pte.report({"test/loss": (F.cross_entropy(output, label), len(label))})
    pte.report({"test/accuracy": ((output.argmax(1) == label).double().mean(), len(label))})


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

    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    evaluator = extensions.Evaluator(test_loader, model, eval_func=lambda *batch: test(model, *batch))
    manager = pte.ExtensionsManager(
        model,
        args.epochs,
        [evaluator, extensions.LRScheduler(scheduler), *extensions.defaults()],
        optimizers=optimizer,
        sinks=["json", "tensorboard", "mlflow"],
        params=args,
    )
    manager.resume()
    train(model, manager.iterations(train_loader), optimizer)


if __name__ == "__main__":
    main()
