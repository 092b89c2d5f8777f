"""The script examples/porting/plain.py with Accelerate: TensorBoard, MLflow, checkpoints, and resume after an epoch."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from sklearn.datasets import load_digits
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset, random_split

Batches = DataLoader[tuple[Tensor, ...]]


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


def train(model: nn.Module, loader: Batches, optimizer: optim.Optimizer, epoch: int, accelerator: Accelerator) -> None:
    model.train()
    for batch, (image, label) in enumerate(loader, (epoch - 1) * len(loader)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image), label)
        accelerator.backward(loss)
        optimizer.step()
        accelerator.log({"train/loss": loss.item()}, step=batch)
        if batch % 20 == 0:
            print(f"epoch {epoch}, batch {batch}: loss {loss.item():.4f}")


def test(model: nn.Module, loader: Batches, epoch: int, accelerator: Accelerator) -> None:
    model.eval()
    loss, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for image, label in loader:
            output = model(image)
            loss += F.cross_entropy(output, label, reduction="sum").item()
            correct += int((output.argmax(1) == label).sum())
            count += len(label)
    accelerator.log({"test/loss": loss / count, "test/accuracy": correct / count}, step=epoch)
    print(f"test: loss {loss / count:.4f}, accuracy {correct / count:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()

    config = ProjectConfiguration("result", automatic_checkpoint_naming=True, total_limit=2)
    accelerator = Accelerator(log_with=["tensorboard", "mlflow"], project_config=config)
    accelerator.init_trackers("digits", vars(args))
    torch.manual_seed(0)
    data, target = load_digits(return_X_y=True)
    images = torch.tensor(data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    train_set, test_set = random_split(TensorDataset(images, torch.tensor(target)), [0.8, 0.2])
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=256)

    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    model, optimizer, scheduler, train_loader = accelerator.prepare(model, optimizer, scheduler, train_loader)
    saved = [int(path.name.split("_")[-1]) for path in Path("result").glob("checkpoints/checkpoint_*")]
    if saved:
        accelerator.load_state()
        config.iteration = max(saved) + 1
    for epoch in range(config.iteration + 1, args.epochs + 1):
        train(model, train_loader, optimizer, epoch, accelerator)
        test(model, test_loader, epoch, accelerator)
        scheduler.step()
        accelerator.save_state()
    accelerator.end_training()


if __name__ == "__main__":
    main()
