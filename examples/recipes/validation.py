"""Log the training loss every 10 iterations, validate and print after each epoch: python validation.py"""

from __future__ import annotations

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(1000, 8)
    train, val = random_split(TensorDataset(inputs, (inputs.sum(1) > 0).long()), [800, 200])
    loader, val_loader = DataLoader(train, 20, shuffle=True), DataLoader(val, 50)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def evaluate(x: Tensor, target: Tensor) -> None:
        output = model(x)
        # With the batch size as weight, the mean over the batches is the mean over the examples.
        pte.report({"val/loss": (F.cross_entropy(output, target), len(x))})
        pte.report({"val/accuracy": ((output.argmax(1) == target).double().mean(), len(x))})

    manager = pte.ExtensionsManager(
        model,
        max_epochs=3,
        extensions=[
            extensions.Evaluator(val_loader, model, eval_func=evaluate),
            extensions.LogReport(trigger=(10, "iteration")),  # one row per 10 iterations
            # The table has one row per epoch: a log of its own, which no backend receives.
            extensions.PrintReport(
                ["epoch", "train/loss", "val/loss", "val/accuracy"], log_report=extensions.LogReport(sinks=[])
            ),
            extensions.snapshot(keep_best=("val/loss", "min", 1)),
        ],
        optimizers=optimizer,
        out_dir="validation",
    )
    manager.resume()
    for x, target in manager.iterations(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})


if __name__ == "__main__":
    main()
