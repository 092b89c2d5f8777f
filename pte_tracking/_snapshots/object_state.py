"""States of any objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._distributed.world import World
from pte_tracking._distributed.zero_redundancy import is_zero_redundancy
from pte_tracking._snapshots.module_state import load_module, save_module
from pte_tracking._snapshots.module_tree import ModuleTree


def save_object(target: Any, tree: ModuleTree | None = None) -> Any:
    """Return the state of an object. Names in the state of a module do not depend on wrappers.

    Args:
        target: The object.
        tree: The parts of a module, if they were read before.
    """
    return save_module(target, tree) if isinstance(target, nn.Module) else target.state_dict()


def load_object(target: Any, state: Mapping[str, Any]) -> None:
    """Restore a state that :func:`save_object` returned.

    Args:
        target: The object.
        state: The state.
    """
    if isinstance(target, nn.Module):
        load_module(target, state)
    else:
        target.load_state_dict(state)


def needs_all_ranks(models: Mapping[str, Any], optimizers: Mapping[str, Any], world: World) -> bool:
    """Return whether the ranks gather the state of a model or an optimizer, so no rank can save it by itself.

    Args:
        models: Models by name.
        optimizers: Optimizers by name.
        world: The ranks.
    """
    if world.is_single_process:
        return False
    return any(map(is_flat, models.values())) or any(map(is_zero_redundancy, optimizers.values()))
