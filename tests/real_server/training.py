"""Training for the real-server tests: ``python training.py DIRECTORY URI [close|kill|wait]``.

With the URI ``-``, the script uses ``MLFLOW_TRACKING_URI``. Credentials are read from the environment. ``kill`` ends
the script with SIGKILL after half of the iterations. ``wait`` pauses it there until standard input is closed.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions

ITERATIONS = 300
KILLED_IN = 150
SNAPSHOT_EVERY = 50
ARTIFACT_IN = 10
ARTIFACT = "ünd &+=~.txt"


def get_value(iteration: int) -> float:
    """Return the loss of an iteration. Every hundredth is NaN."""
    return math.nan if iteration % 100 == 0 else iteration / 7


def main(directory: str, uri: str, ending: str = "close") -> None:
    manager = pte.ExtensionsManager(
        nn.Linear(20, 20),
        1,
        [
            extensions.LogReport(trigger=(1, "iteration")),
            extensions.PlotReport("loss", trigger=(100, "iteration")),
            extensions.snapshot(trigger=(SNAPSHOT_EVERY, "iteration"), n_retains=2, asynchronous=False),
        ],
        iters_per_epoch=ITERATIONS,
        out_dir=directory,
        sinks=["json", MLflowSink(None if uri == "-" else uri)],
        params={"lr": 0.1},
        close_timeout=5,
    )
    with manager:
        for iteration in range(1, ITERATIONS + 1):
            with manager.run_iteration():
                pte.report({"loss": torch.tensor(get_value(iteration), dtype=torch.float64)})
            if iteration == ARTIFACT_IN:
                path = Path(directory, ARTIFACT)
                path.write_text("an artifact")
                manager.run.log_artifact(path, "a directory")
            if iteration == KILLED_IN and ending == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if iteration == KILLED_IN and ending == "wait":
                print("waiting", flush=True)
                sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
