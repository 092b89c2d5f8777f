"""Only once."""

from __future__ import annotations

from typing import Any

from pte_tracking._interface.extension import Manager
from pte_tracking.triggers._base import Trigger


class OnceTrigger(Trigger):
    """Fires in the first iteration and never again.

    Args:
        call_on_resume: Fire once more after each resume.
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
