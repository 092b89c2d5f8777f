"""When snapshots are taken, and how long they are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pte_tracking._interface.extension import TriggerLike


@dataclasses.dataclass(frozen=True)
class SnapshotPolicy:
    """When something is saved, and how long it is kept; see :func:`snapshot`."""

    trigger: TriggerLike
    condition: Callable[[], bool] | None
    n_retains: int
    autoload: bool
    on_error: bool
    asynchronous: bool

    def __post_init__(self) -> None:
        if self.condition is not None and not callable(self.condition):
            raise TypeError(f"condition: expected a function without arguments, got {self.condition!r}")
        if isinstance(self.n_retains, bool) or not isinstance(self.n_retains, int):
            raise TypeError(f"n_retains: expected a whole number, got {self.n_retains!r}")

    @property
    def is_condition_met(self) -> bool:
        """Whether the condition, if there is one, holds."""
        return self.condition is None or bool(self.condition())
