"""Trigger that calls a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers._conversion import get_trigger


class FunctionTrigger(Trigger):
    """Trigger that calls a function with fixed arguments.

    The function does not receive the manager. A function that takes the manager is a trigger itself, see
    :func:`get_trigger`. In distributed training, the result of rank 0 decides for all ranks.

    Snapshots contain the state of the inner trigger.

    Args:
        fn: Function that returns whether to fire.
        args: Positional arguments of the function. Defaults to none.
        kwargs: Keyword arguments of the function. Defaults to none.
        trigger: When to call the function. Otherwise, the trigger does not fire. Defaults to ``(1, "iteration")``.

    Raises:
        TypeError: If ``fn`` is not callable or ``trigger`` has the wrong type.
        ValueError: If ``trigger`` is invalid.

    Example:
        >>> import threading
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> request = threading.Event()
        >>> @pte.make_extension(trigger=triggers.FunctionTrigger(request.is_set))
        ... def show(manager):
        ...     request.clear()
        ...     print("iteration", manager.iteration)
        >>> with pte.ExtensionsManager({}, 1, [show], iters_per_epoch=4, sinks=[]) as manager:
        ...     for batch in manager.batches(range(4)):
        ...         with manager.run_iteration():
        ...             if batch == 2:
        ...                 request.set()
        iteration 3
    """

    def __init__(
        self,
        fn: Callable[..., bool],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        trigger: TriggerLike = (1, "iteration"),
    ) -> None:
        if not callable(fn):
            raise TypeError(f"fn: expected a function that returns whether to fire, got {fn!r}")
        self._function = fn
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._trigger = get_trigger(trigger)

    def __call__(self, manager: Manager) -> bool:
        return self._trigger(manager) and bool(self._function(*self._args, **self._kwargs))

    def state_dict(self) -> dict[str, Any]:
        return {"trigger": self._trigger.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._trigger.load_state_dict(state["trigger"])
