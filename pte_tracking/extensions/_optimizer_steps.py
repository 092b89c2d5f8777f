"""Detection of the steps of an optimizer, which a gradient scaler may skip."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pte_tracking._snapshots.inner_optimizers import torch_optimizers


class OptimizerSteps:
    """Steps of an optimizer since the last time that they were taken into account.

    An optimizer that has never stepped and has no gradients is not trained here, and a scheduler does not wait for it.

    Args:
        optimizer: The optimizer of a scheduler. The steps of an object without hooks are not noticed.

    Attributes:
        has_ever_stepped: Whether the optimizer had stepped at the last call of :meth:`take`.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizers = list(torch_optimizers(optimizer).values())
        self.has_ever_stepped = False
        self._has_stepped = False
        #: Flags of fused steps, which read on the device whether to skip.
        self._skipped: list[Tensor] = []
        for item in self._optimizers:
            item.register_step_post_hook(self._note)

    def take(self) -> bool:
        """Return whether the optimizer has stepped since the last call, or is not trained here."""
        if not self._optimizers:
            return True
        has_stepped = self._was_stepped()
        self.has_ever_stepped = self.has_ever_stepped or has_stepped
        self._has_stepped, self._skipped = False, []
        return has_stepped or not (self.has_ever_stepped or self._has_gradients())

    def state_dict(self) -> dict[str, bool]:
        """Return whether the optimizer has stepped since the last call of :meth:`take`, and whether before."""
        return {"has_stepped": self._was_stepped(), "has_ever_stepped": self.has_ever_stepped}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        self._has_stepped, self._skipped = state["has_stepped"], []
        self.has_ever_stepped = state["has_ever_stepped"]

    def _note(self, optimizer: Optimizer, *_: object) -> None:
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is None:
            self._has_stepped = True
        else:
            self._skipped.append(skipped)

    def _was_stepped(self) -> bool:
        return self._has_stepped or not all(map(bool, self._skipped))

    def _has_gradients(self) -> bool:
        groups = (group for optimizer in self._optimizers for group in optimizer.param_groups)
        return any(parameter.grad is not None for group in groups for parameter in group["params"])
