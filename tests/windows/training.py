"""Training that is run with the restrictions of Windows: ``training.py DIRECTORY fresh|resume|hold``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions


def train(directory: Path, mode: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = pte.ExtensionsManager(
        model,
        1,
        [extensions.LogReport(trigger=(1, "iteration")), extensions.snapshot(trigger=(5, "iteration"))],
        optimizers=optimizer,
        iters_per_epoch=10,
        out_dir=directory,
        sinks=["json", "tensorboard"],
    )
    if mode == "resume":
        assert manager.resume() is not None
    while not manager.stop_trigger:
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = model(torch.ones(4, 2)).square().mean()
            loss.backward()
            optimizer.step()
            pte.report({"loss": loss})
        if mode == "hold" and manager.iteration == 7:
            print("held", flush=True)
            sys.stdin.read()
    manager.close()


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2])
