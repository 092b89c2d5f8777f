"""Base class of triggers."""

from __future__ import annotations

from typing import Any

from pte_tracking._interface.extension import Manager, Unit


class Trigger:
    """Base class of triggers.

    A trigger decides in each iteration whether an extension runs. As ``stop_trigger`` of a manager, it decides whether
    the training stops. The manager evaluates each trigger exactly once per iteration, after the extensions of higher
    priority, so a trigger can count its calls.

    A subclass implements ``__call__`` and, if it has a state, :meth:`state_dict` and :meth:`load_state_dict`. A trigger
    without a state can also be a function of the manager.

    Example:
        >>> import pte_tracking as pte
        >>> class PowerOfTwoTrigger(pte.Trigger):
        ...     def __call__(self, manager):
        ...         return manager.iteration.bit_count() == 1
        >>> @pte.make_extension(trigger=PowerOfTwoTrigger())
        ... def show(manager):
        ...     print(manager.iteration)
        >>> with pte.ExtensionsManager({}, 1, [show], iters_per_epoch=10, sinks=[]) as manager:
        ...     for batch in manager.batches(range(10)):
        ...         with manager.run_iteration():
        ...             pass
        1
        2
        4
        8
    """

    @property
    def finished(self) -> bool:
        """Whether the trigger never fires again. The manager does not initialize the extension of such a trigger."""
        return False

    @property
    def training_length(self) -> tuple[float, Unit] | None:
        """Maximum training length set by this trigger as ``stop_trigger``.

        A pair such as ``(20, "epoch")`` or ``(1000, "iteration")``. None if the trigger sets no maximum.
        """
        return None

    def evaluate(self, manager: Manager) -> bool:
        """Return the decision of rank 0 on every rank.

        The manager calls this method, on all ranks, instead of ``__call__``. The default calls ``__call__`` on each
        rank and broadcasts the result of rank 0. A subclass whose decision is the same on every rank can return
        ``self(manager)`` and avoid the broadcast.

        Args:
            manager: The manager of the training.

        Returns:
            Whether the trigger fires in this iteration.
        """
        return manager.world.broadcast_flag(self(manager))

    def __call__(self, manager: Manager) -> bool:
        """Return whether the trigger fires in this iteration.

        Args:
            manager: The manager of the training.

        Raises:
            NotImplementedError: If the subclass does not implement this method.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement __call__(self, manager) -> bool. "
            "Return from it whether the trigger fires."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in snapshots.

        Returns:
            A dictionary of tensors and plain values. Empty by default.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state returned by :meth:`state_dict`.

        Args:
            state: The saved state.
        """
