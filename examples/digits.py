"""Train a small network on the digits of scikit-learn, logged to a JSON log, TensorBoard, and MLflow.

python digits.py            # writes the run to ./result and to the default store of MLflow
python digits.py --resume   # continues after the last snapshot
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import pte_tracking as pte
from pte_tracking import extensions


def digits() -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Return loaders for training and validation: 1,797 handwritten digits of 8 x 8 pixels, split 80 to 20."""
    data, target = load_digits(return_X_y=True)
    images = torch.tensor(data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    train, val = random_split(TensorDataset(images, torch.tensor(target)), [0.8, 0.2])
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=len(val))


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * 2 * 2, 10)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)  # more threads are slower for a small network
    torch.manual_seed(args.seed)
    train, val = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    def evaluate(image: Tensor, label: Tensor) -> None:
        output = model(image)
        losses = nn.functional.cross_entropy(output, label, reduction="none")
        pte.report({"val/loss": losses.mean(), "val/accuracy": (output.argmax(1) == label).double().mean()})
        # The loader has one batch. For several, count in a metric: see recipes/segmentation.py.
        confusion = torch.bincount(label * 10 + output.argmax(1), minlength=100).view(10, 10)
        manager.run.log_confusion_matrix("val/confusion", confusion, manager.iteration)
        hardest_image = nn.functional.interpolate(image[losses.argmax()][None], scale_factor=16)[0]
        manager.run.log_image("val/hardest", hardest_image, manager.iteration)

    manager = pte.ExtensionsManager(
        model,
        args.epochs,
        [
            extensions.Evaluator(val, model, eval_func=evaluate),
            extensions.ModelSummary(),
            extensions.ParameterHistogram(model),
            extensions.LogReport(),
            extensions.PrintReport(["epoch", "train/loss", "val/loss", "val/accuracy", "elapsed_time"]),
            extensions.ProgressBar(),
            extensions.snapshot(),
        ],
        optimizers=optimizer,
        sinks=["json", "tensorboard", "mlflow"],
        params={"epochs": args.epochs, "lr": args.lr, "seed": args.seed},
    )
    if args.resume:
        manager.resume()
    manager.run.log_dataset("digits", hashlib.sha256(load_digits().data.tobytes()).hexdigest(), source="sklearn")
    for image, label in manager.iterations(train):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})


if __name__ == "__main__":
    main()
