"""Evaluate the best checkpoint of a run, and save its weights for deployment: python best_checkpoint.py"""

from __future__ import annotations

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(300, 8)
    data = TensorDataset(inputs, (inputs.sum(1) > 0).long())
    model = nn.Linear(8, 2)
    optimizer = optim.SGD(model.parameters(), lr=1.0)

    def evaluate(x: Tensor, target: Tensor) -> None:
        pte.report({"val/loss": F.cross_entropy(model(x), target)})

    manager = pte.ExtensionsManager(
        model,
        max_epochs=5,
        extensions=[
            extensions.Evaluator([data[200:]], model, eval_func=evaluate),
            extensions.LogReport(),
            extensions.PrintReport(),
            extensions.snapshot(n_retains=1, keep_best=("val/loss", "min", 1)),
        ],
        optimizers=optimizer,
        out_dir="best_checkpoint",
    )
    manager.resume()
    for x, target in manager.iterations(DataLoader(TensorDataset(*data[:200]), 20, shuffle=True)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})

    # In another process, or on another day:
    best_model = nn.Linear(8, 2)
    checkpoint = pte.load("best_checkpoint", "best", models=best_model)
    best_model.eval()
    with torch.no_grad():
        loss = F.cross_entropy(best_model(data[200:][0]), data[200:][1])
    print(f"best checkpoint: step {checkpoint.step}, val/loss {checkpoint.values['val/loss']:.4f}, again {loss:.4f}")
    torch.save(best_model.state_dict(), "weights.pt")


if __name__ == "__main__":
    main()
