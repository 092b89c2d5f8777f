"""Training that requires only what every installation contains. NumPy must not be imported, even if it is installed."""

from __future__ import annotations

import sys

import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

sys.modules["numpy"] = None  # type: ignore[assignment]
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
manager = pte.ExtensionsManager(
    model,
    2,
    [extensions.LogReport(), extensions.PrintReport(), extensions.snapshot(), extensions.ProgressBar()],
    optimizers=optimizer,
    iters_per_epoch=5,
    out_dir=sys.argv[1],
    sinks=["json"],
    params={"lr": 0.01},
)
while not manager.stop_trigger:
    with manager.run_iteration():
        optimizer.zero_grad()
        loss = model(torch.ones(8, 4)).square().mean()
        loss.backward()
        optimizer.step()
        pte.report({"loss": loss})
