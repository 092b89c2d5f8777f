"""Training with system metrics, for the picture of MLflow's page: ``python system_metrics.py SECONDS``."""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    manager = pte.ExtensionsManager(
        model,
        1000,
        [
            extensions.Monitor(),
            extensions.SystemMetrics(interval=1),
            extensions.LogReport(trigger=(1, "iteration")),
        ],
        optimizers=optimizer,
        stop_trigger=pte.triggers.TimeTrigger(float(sys.argv[1])),
        sinks=["json", "mlflow"],
    )
    for batch in manager.batches([torch.rand(256, 1024)] * 50):
        with manager.run_iteration(step_optimizers=["main"]):
            model(batch).square().mean().backward()
            time.sleep(0.1)


if __name__ == "__main__":
    main()
