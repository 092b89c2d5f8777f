"""Scenarios of resumes on several ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from tests.ranks.components import make_manager


class Version:
    """State object that may refuse its state."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses, self.value = refuses, 1

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
        if self.refuses:
            raise ValueError("another version")


def fail_to_resume_on_one_rank(folder: Path) -> Any:
    """Resume with an object that refuses its state on rank 1, and then without it."""
    outcomes: list[Any] = []
    for refuses in (None, dist.get_rank() == 1, False):
        version, model = Version(bool(refuses)), nn.Linear(1, 1)
        options: Any = {"models": model, "state_objects": {"version": version}, "epochs": 2, "iters_per_epoch": 2}
        manager = make_manager(folder / "run", extensions.snapshot(), **options)
        before = model.weight.item()
        version.value = 1 if refuses is None else 5
        try:
            if refuses is not None:
                manager.resume()
        except (ValueError, RuntimeError) as error:
            outcomes.append((type(error).__name__, "another version" in str(error)))
            outcomes.append((version.value, model.weight.item() == before, manager.iteration))
            continue
        outcomes.append((version.value, manager.iteration))
        if refuses is None:
            for _ in range(2):
                with manager.run_iteration():
                    pte.report({"x": 1.0})
            manager.close()
    return outcomes
