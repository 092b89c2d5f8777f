"""Trigger that fires once."""

from __future__ import annotations

from typing import Any

from pte_tracking._interface.extension import Manager
from pte_tracking.triggers._base import Trigger


class OnceTrigger(Trigger):
    """Trigger that fires in the first iteration only.

    Snapshots contain whether the trigger still has to fire, so that it does not fire again after a resume.

    Args:
        call_on_resume: Fire again in the first iteration after each resume. Defaults to False.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> @pte.make_extension(trigger=triggers.OnceTrigger())
        ... def show(manager):
        ...     print("iteration", manager.iteration)
        >>> with pte.ExtensionsManager({}, 1, [show], iters_per_epoch=3, sinks=[]) as manager:
        ...     for batch in manager.batches(range(3)):
        ...         with manager.run_iteration():
        ...             pass
        iteration 1
    """

    def __init__(self, call_on_resume: bool = False) -> None:
        self._call_on_resume = call_on_resume
        self._is_due = True

    @property
    def finished(self) -> bool:
        return not self._is_due

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)

    def __call__(self, manager: Manager) -> bool:
        is_due, self._is_due = self._is_due, False
        return is_due

    def state_dict(self) -> dict[str, Any]:
        return {"is_due": self._is_due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._is_due = state["is_due"] or self._call_on_resume
