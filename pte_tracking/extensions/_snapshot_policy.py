"""Options that all snapshot extensions share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pte_tracking._interface.extension import TriggerLike
from pte_tracking._store.argument_names import refused_call


@dataclasses.dataclass(frozen=True)
class SnapshotPolicy:
    """Options that all snapshot extensions share; see :func:`pte_tracking.extensions.snapshot`.

    Attributes:
        trigger: When to take a snapshot.
        condition: Function that must return True for a snapshot, or None.
        n_retains: Number of newest files to keep.
        autoload: Whether to load the newest file when the training starts.
        on_error: Whether to save the state after an error.
        asynchronous: Whether to write files in a separate thread.
        at_end: Whether to take a snapshot when the training stops between two snapshots.

    Raises:
        TypeError: If ``condition`` is no function without arguments, ``autoload`` is not a boolean, or ``n_retains`` is
            not an integer.
    """

    trigger: TriggerLike
    condition: Callable[[], bool] | None
    n_retains: int
    autoload: bool
    on_error: bool
    asynchronous: bool
    at_end: bool = False

    def __post_init__(self) -> None:
        if self.condition is not None and not callable(self.condition):
            raise TypeError(f"condition: expected a function without arguments, got {self.condition!r}")
        if self.condition is not None and (call := refused_call(self.condition, 0)):
            raise TypeError(f"condition: expected a function without arguments, got {call}")
        if not isinstance(self.autoload, bool):
            raise TypeError(
                f"autoload: expected True for the newest snapshot, or False, got {self.autoload!r}. Pass another "
                "source to manager.resume()."
            )
        if isinstance(self.n_retains, bool) or not isinstance(self.n_retains, int):
            raise TypeError(f"n_retains: expected an integer, got {self.n_retains!r}")

    @property
    def is_condition_met(self) -> bool:
        """Whether the condition is true or absent."""
        return self.condition is None or bool(self.condition())
