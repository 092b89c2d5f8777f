"""Detection of loops that do not zero the gradients of an optimizer after its step."""

from __future__ import annotations

import logging
import weakref

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

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
        parameter = next(
            (item for group in optimizer.param_groups for item in group["params"] if item.grad is not None), None
        )
        if parameter is None:
            return
        if hasattr(parameter.grad, USED_VERSION):
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
        gradient = parameter.grad
        if self.are_kept is not None:
            return
        self.are_kept = gradient is not None and getattr(gradient, USED_VERSION, None) == gradient._version
        if self.are_kept and self._is_saved_without:
            _logger.warning(
                "snapshot: the loop does not zero the gradients after a step of the optimizer. Snapshots contain them "
                "from here on, the earlier one does not, so that a resume from it is not exact."
            )


_by_optimizer: weakref.WeakKeyDictionary[Optimizer, KeptGradients] = weakref.WeakKeyDictionary()
