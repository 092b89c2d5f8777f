"""Cross-validation with one run per fold; start again after a kill to continue: python cross_validation.py"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from digits import network
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

GROUP = "digits-folds"


def train_fold(directory: Path, train: DataLoader[tuple[Tensor, ...]], val: DataLoader[tuple[Tensor, ...]]) -> None:
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def evaluate(image: Tensor, label: Tensor) -> None:
        pte.report({"val/accuracy": (model(image).argmax(1) == label).double().mean()})

    manager = pte.ExtensionsManager(
        model,
        3,  # epochs
        [extensions.Evaluator(val, model, eval_func=evaluate), extensions.LogReport(), extensions.snapshot()],
        optimizers=optimizer,
        iters_per_epoch=len(train),
        out_dir=directory,
        sinks=["json", "mlflow"],
        group=GROUP,
        params={"fold": directory.name},
    )
    manager.resume()  # a fold that is complete trains nothing
    for image, label in manager.batches(train):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(image), label)
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)  # more threads are slower for a small network

    data, target = load_digits(return_X_y=True)
    dataset = TensorDataset(torch.tensor(data, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(target))
    folds = StratifiedKFold(args.folds, shuffle=True, random_state=0)
    for number, (train, val) in enumerate(folds.split(data, target)):
        loader = DataLoader(Subset(dataset, train), batch_size=32, shuffle=True)
        train_fold(Path("folds", str(number)), loader, DataLoader(Subset(dataset, val), batch_size=len(val)))

    accuracies = [run.metrics["val/accuracy"].last for run in pte.open_runs("folds", group=GROUP)]
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    print(f"val/accuracy of {len(accuracies)} folds: {mean:.3f} +- {deviation:.3f}")


if __name__ == "__main__":
    main()
