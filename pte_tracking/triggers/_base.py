"""What a trigger is."""

from __future__ import annotations

from typing import Any

from pte_tracking._interface.extension import Manager


class Trigger:
    """Decides, once in each iteration, whether something happens now.

    The manager asks each trigger exactly once per iteration, after the extensions of higher priority have run, and
    keeps the answer; so a trigger may count how often it was asked.
    """

    @property
    def finished(self) -> bool:
        """Whether it will never fire again; its extension is then not even initialized."""
        return False

    @property
    def training_length(self) -> tuple[float, str] | None:
        """As a stop trigger: how long the training will be at most, such as ``(20, "epoch")``; None if unknown."""
        return None

    def evaluate(self, manager: Manager) -> bool:
        """The answer that counts, the same on all ranks: that of rank 0.

        Triggers whose answer follows from what all ranks know alike spare themselves the question.
        """
        return manager.world.broadcast_flag(self(manager))

    def __call__(self, manager: Manager) -> bool:
        raise NotImplementedError(
            f"{type(self).__name__} has no __call__(self, manager) -> bool; a trigger decides there"
        )

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume: plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state_dict` returned."""
