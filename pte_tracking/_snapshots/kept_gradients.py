"""Detection of loops that do not zero the gradients of an optimizer after its step."""

from __future__ import annotations

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
    """Whether the gradients of an optimizer are kept after its step, so that the next step uses them again.

    The second step decides: by default, ``zero_grad()`` removes the gradients, and the next ones are new tensors.
    Otherwise, the next backward pass finds out whether they still have their values.

    Attributes:
        are_kept: Whether they are kept; None until this is known.
    """

    def __init__(self) -> None:
        self.are_kept: bool | None = None
        self._is_saved_without = self._has_stepped = False
        self._handle: RemovableHandle | None = None

    @classmethod
    def of(cls, optimizer: Optimizer) -> KeptGradients:
        """Return the object for an optimizer."""
        return _by_optimizer.setdefault(optimizer, cls())

    def note_step(self, optimizer: Optimizer) -> None:
        """Inspect a gradient after a step, before it is marked as used."""
        if self._handle is not None:
            return
        # No backward pass reaches a frozen parameter, which may still have its last gradient.
        parameters = (item for group in optimizer.param_groups for item in group["params"] if item.requires_grad)
        parameter = next((item for item in parameters if item.grad is not None), None)
        if parameter is None:
            return
        if hasattr(gradient_content(parameter.grad), USED_VERSION):
            if is_sharded(parameter):  # Its hooks do not run. Saving gradients that the loop will zero changes nothing.
                self.are_kept = True
            else:
                self._handle = parameter.register_hook(lambda _: self._inspect(parameter))
        elif self._has_stepped:
            self.are_kept = False
        self._has_stepped = True

    def note_snapshot(self) -> None:
        """Note that a snapshot without the gradients was taken if it is not known yet whether they are kept."""
        self._is_saved_without |= self._has_stepped and self.are_kept is None

    def finish(self) -> None:
        """Remove the hook after it has decided."""
        if self._handle is not None and self.are_kept is not None:
            self._handle.remove()
            self._handle = None

    def _inspect(self, parameter: Tensor) -> None:
        if self.are_kept is not None:
            return
        content = None if parameter.grad is None else gradient_content(parameter.grad)
        self.are_kept = content is not None and getattr(content, USED_VERSION, None) == content._version
        if self.are_kept and self._is_saved_without:
            _logger.warning(
                "snapshot: the loop does not zero the gradients after a step of the optimizer. Snapshots contain them "
                "from here on, the earlier one does not, so that a resume from it is not exact."
            )


def gradient_content(gradient: Tensor) -> Any:
    """Return the tensor whose version changes with each accumulation."""
    return cast(Any, gradient)._local_tensor if is_sharded(gradient) else gradient


_by_optimizer: weakref.WeakKeyDictionary[Optimizer, KeptGradients] = weakref.WeakKeyDictionary()
