"""When a function says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers._conversion import get_trigger


class FunctionTrigger(Trigger):
    """Asks a function that knows nothing of the manager; one that takes the manager is a trigger as it is.

    Args:
        fn: Returns whether to fire.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        trigger: When it is asked.

    Raises:
        TypeError: It is no function.
    """

    def __init__(
        self,
        fn: Callable[..., bool],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        trigger: TriggerLike = (1, "iteration"),
    ) -> None:
        if not callable(fn):
            raise TypeError(f"fn: expected a function that says whether to fire, got {fn!r}")
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
