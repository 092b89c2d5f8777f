"""Training for the outage tests: ``python training.py DIRECTORY URI EXPERIMENT ITERATIONS [close|kill]``."""

from __future__ import annotations

import os
import signal
import sys

import torch
from torch import nn

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions


def get_value(iteration: int) -> float:
    """Return the loss of an iteration."""
    return iteration / 7


def main(directory: str, uri: str, experiment: str, iterations: int, ending: str = "close") -> None:
    model = nn.Linear(2, 1)
    manager = pte.ExtensionsManager(
        model,
        1,
        [
            extensions.LogReport(trigger=(1, "iteration")),
            extensions.snapshot(trigger=(iterations // 3, "iteration"), asynchronous=False),
        ],
        iters_per_epoch=iterations,
        out_dir=directory,
        sinks=["json", "tensorboard", MLflowSink(uri, experiment)],
        close_timeout=1,
    )
    with manager:
        for iteration in range(1, iterations + 1):
            with manager.run_iteration():
                pte.report({"loss": torch.tensor(get_value(iteration), dtype=torch.float64)})
            if ending == "kill" and iteration == iterations // 2:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:])
