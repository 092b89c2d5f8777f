"""Training that diverges to NaN: ``python diverging.py OUT_DIR``."""

from __future__ import annotations

import sys

import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions


def main(out_dir: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e20)
    manager = pte.ExtensionsManager(
        {"main": model},
        5,
        [extensions.FailOnNonNumber(), extensions.LogReport(trigger=(1, "iteration"))],
        optimizers=optimizer,
        iters_per_epoch=10,
        out_dir=out_dir,
    )
    for x in manager.batches([torch.randn(4, 8) for _ in range(10)]):
        with manager.run_iteration(step_optimizers=["main"]):
            loss = model(x).square().mean()
            loss.backward()
            pte.report({"train/loss": loss})


if __name__ == "__main__":
    main(sys.argv[1])
