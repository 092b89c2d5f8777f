"""Detection of loops that do not zero the gradients of an optimizer after its step."""

from __future__ import annotations

import functools
import logging
import weakref
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from pte_tracking._distributed.sharding import is_sharded

_logger = logging.getLogger("pte_tracking")
#: Attribute of a gradient: its version after the last step of its optimizer.
USED_VERSION = "_pte_tracking_used_version"


class KeptGradients:
    """Whether the gradients of an optimizer are kept after its step, so the next step uses them again.

    The second step decides: by default, ``zero_grad()`` removes the gradients, and the next ones are new tensors.
    Otherwise, the next backward pass finds out whether they still have their values.

    Attributes:
        are_kept: Whether they are kept; None until this is known.
    """

    def __init__(self) -> None:
        self.are_kept: bool | None = None
        self._is_saved_without = self._has_stepped = self._is_inspected = False
        self._handles: list[RemovableHandle] = []

    @classmethod
    def of(cls, optimizer: Optimizer) -> KeptGradients:
        """Return the object for an optimizer."""
        found = _by_optimizer.get(optimizer)
        if found is None:  # not setdefault(), which would construct an object in each step
            found = _by_optimizer[optimizer] = cls()
        return found

    def note_step(self, optimizer: Optimizer) -> None:
        """Inspect the gradients after a step, before they are marked as used."""
        if self._handles:
            if self._is_inspected and self.are_kept is None:
                self.are_kept = False
            return
        parameters = [item for group in optimizer.param_groups for item in group["params"] if item.grad is not None]
        # No backward pass reaches a frozen parameter, which may still have its last gradient.
        used = [
            item for item in parameters if item.requires_grad and hasattr(gradient_content(item.grad), USED_VERSION)
        ]
        if any(map(is_sharded, used)):  # Their hooks do not run. Saving gradients that the loop zeroes changes nothing.
            self.are_kept = True
            return
        # The loop may zero only a part of them.
        self._handles = [item.register_hook(functools.partial(self._inspect, item)) for item in used]
        if parameters:
            if self._has_stepped and not used:
                self.are_kept = False
            self._has_stepped = True

    def note_snapshot(self) -> None:
        """Note that a snapshot without the gradients was taken if it is not known yet whether they are kept."""
        self._is_saved_without |= self._has_stepped and self.are_kept is None

    def finish(self) -> None:
        """Remove the hooks after they have decided."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _inspect(self, parameter: Tensor, _: Tensor) -> None:
        self._is_inspected = True
        content = None if parameter.grad is None else gradient_content(parameter.grad)
        if self.are_kept or content is None or getattr(content, USED_VERSION, None) != content._version:
            return
        self.are_kept = True
        if self._is_saved_without:
            _logger.warning(
                "snapshot: the loop does not zero the gradients after a step of the optimizer. Snapshots contain them "
                "from here on, the earlier one does not, so a resume from it is not exact."
            )


def gradient_content(gradient: Tensor) -> Any:
    """Return the tensor whose version changes with each accumulation."""
    return cast(Any, gradient)._local_tensor if is_sharded(gradient) else gradient


_by_optimizer: weakref.WeakKeyDictionary[Optimizer, KeptGradients] = weakref.WeakKeyDictionary()
