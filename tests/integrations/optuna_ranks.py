"""Pruning on several ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import torch.distributed as dist

import pte_tracking as pte
from pte_tracking.integrations.optuna import PruningExtension


def prune(folder: Path) -> Any:
    """Train a trial that the pruner stops, of which only rank 0 knows."""
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.5))
    trial = study.ask() if dist.get_rank() == 0 else None
    manager = pte.ExtensionsManager(
        {}, 5, [PruningExtension(trial, "val/loss")], iters_per_epoch=1, out_dir=folder / "run"
    )
    try:
        with manager:
            while not manager.stop_trigger:
                with manager.run_iteration():
                    pte.report({"val/loss": float(manager.iteration)})
    except optuna.TrialPruned as error:
        return [manager.iteration, str(error)]
    return None
