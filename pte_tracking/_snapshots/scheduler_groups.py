"""States of schedulers, whose values for the parameter groups of their optimizer have no names, only positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Keys of the schedulers of torch under which there is one value for each parameter group.
_GROUP_KEYS = frozenset(("base_lrs", "_last_lr", "lr_lambdas", "max_lrs", "min_lrs", "base_momentums", "max_momentums"))


def arrange_scheduler(state: Any, order: Sequence[int]) -> Any:
    """Return the state of a scheduler, and of those in it, with its values in the current order of the groups.

    Args:
        state: The state.
        order: For each current group, the number of the group in the state.
    """
    if isinstance(state, Mapping):
        return {
            key: [value[number] for number in order]
            if key in _GROUP_KEYS and isinstance(value, list | tuple) and len(value) == len(order)
            else arrange_scheduler(value, order)
            for key, value in state.items()
        }
    return [arrange_scheduler(item, order) for item in state] if type(state) is list else state
