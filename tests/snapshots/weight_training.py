"""Training in which each weight is the number of completed iterations, for tests of snapshot extensions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

EVERY: Any = (1, "iteration")


def make_manager(out: Path, *own_extensions: Any, iters_per_epoch: int = 2, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(3, 2),
        50,
        [*own_extensions, extensions.LogReport()],
        out_dir=out,
        iters_per_epoch=iters_per_epoch,
        **options,
    )


def run(
    manager: pte.ExtensionsManager, iterations: int, report: Callable[[int], dict[str, Any]] = lambda i: {}
) -> pte.ExtensionsManager:
    """Run iterations that set each weight to the number of completed iterations."""
    with manager:
        for _ in range(iterations):
            with manager.run_iteration():
                done = manager.iteration + 1
                for parameter in manager.models["main"].parameters():
                    parameter.data.fill_(done)
                pte.report(report(done))
    return manager


def list_files(out: Path) -> list[str]:
    run_files = {"journal.jsonl", "run.json", "checkpoints.json", "log", "delivery", ".lock"}
    return sorted(path.name for path in out.iterdir() if path.name not in run_files)


def weight(path: Path) -> float:
    state = torch.load(path)
    first_weight: float = state["models"]["main"]["weight"][0, 0].item()
    return first_weight
