"""Earlier states of objects, to which they return if a resume fails."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn, optim
from torch.nn.parameter import is_lazy

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.zero_redundancy import is_zero_redundancy
from pte_tracking._snapshots.inner_optimizers import torch_optimizers
from pte_tracking._snapshots.object_state import load_object

_logger = logging.getLogger("pte_tracking")


def loads_by_copy(target: object) -> bool:
    """Return whether an object is a module that only copies the tensors of a state, which cannot fail once checked.

    A module that has hooks or overrides a method of torch may refuse a state at any point.
    """
    return isinstance(target, nn.Module) and not any(map(_has_own_loading, target.modules()))


def load_reversibly(
    label: str,
    remedy: str,
    target: Any,
    saved: Any,
    undo: contextlib.ExitStack,
    load: Callable[[Any, Any], object] = load_object,
) -> None:
    """Restore the state of an object that may refuse it.

    Args:
        label: The object, as described in messages.
        remedy: How to continue without the state of the object.
        target: The object.
        saved: The state.
        undo: Receives a function that returns the object to its earlier state.
        load: Restores the state. Defaults to the method of the object.

    Raises:
        ValueError: If the object raises.
    """
    undo.callback(_restore_earlier, label, _remember(target))
    try:
        load(target, saved)
    except Exception as error:
        raise ValueError(
            f"state: {label}, of type {type(target).__name__}, cannot restore its saved state: "
            f"{type(error).__name__}: {error}. Nothing was restored. Check that the state was saved by the same type "
            f"with the same arguments, or {remedy}."
        ) from error


def keep_attributes(target: object, undo: contextlib.ExitStack) -> None:
    """Return an object to its current attributes if the resume fails.

    Args:
        target: The object.
        undo: Receives a function that sets the attributes.
    """
    undo.callback(vars(target).update, dict(vars(target)))


def _restore_earlier(label: str, restore: Callable[[], object]) -> None:
    try:
        restore()
    except Exception:
        _logger.exception("%s could not return to its earlier state after the failed restore.", label)


def _remember(target: Any) -> Callable[[], object]:
    if isinstance(target, nn.Module):
        return _remember_module(target)
    restore_optimizers = _remember_optimizers(target)
    if isinstance(target, optim.Optimizer) and type(target).load_state_dict is optim.Optimizer.load_state_dict:
        return restore_optimizers
    if is_zero_redundancy(target):
        return restore_optimizers
    earlier = copy.deepcopy(target.state_dict())

    def restore() -> None:
        target.load_state_dict(earlier)
        restore_optimizers()

    return restore


def _remember_optimizers(target: Any) -> Callable[[], None]:
    """Keep the attributes of the optimizers of torch that an object is or contains.

    Without a copy of the tensors: an optimizer of torch replaces its containers and does not change their tensors.
    """
    earlier: list[tuple[Any, dict[str, Any]]] = []
    for optimizer in torch_optimizers(target).values():
        attributes = {"state": optimizer.state, "param_groups": optimizer.param_groups}
        if is_zero_redundancy(target):
            # It changes the containers of its local optimizer.
            attributes["state"] = copy.copy(optimizer.state)
            attributes["param_groups"] = [dict(group) for group in optimizer.param_groups]
        earlier.append((optimizer, attributes))

    def restore() -> None:
        for optimizer, attributes in earlier:
            vars(optimizer).update(attributes)

    return restore


def _remember_module(root: nn.Module) -> Callable[[], object]:
    """Copy the tensors of a module. Its hooks, which may fail again, are not called to restore them."""
    modules = list(root.modules())
    tables: list[dict[str, Any]] = [table for module in modules for table in (module._parameters, module._buffers)]
    earlier = [(table, dict(table)) for table in tables]
    tensors = {id(tensor): tensor for _, entries in earlier for tensor in entries.values() if tensor is not None}
    local = [_local(tensor) for tensor in tensors.values() if not is_lazy(tensor)]
    # In the memory of the host: that of the device may have no room for a second model.
    copies = [(tensor, tensor.to("cpu", copy=True)) for tensor in local]
    extra = [(module, copy.deepcopy(module.get_extra_state())) for module in modules if _has_extra_state(module)]

    def restore() -> None:
        for table, entries in earlier:
            table.clear()
            table.update(entries)
        with torch.no_grad():
            for tensor, content in copies:
                tensor.copy_(content)
        for module, state in extra:
            module.set_extra_state(state)

    return restore


def _local(tensor: Tensor) -> Tensor:
    """Return the content of a tensor on this rank, which shares its memory."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor.detach()


def _has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def _has_own_loading(module: nn.Module) -> bool:
    kind = type(module)
    methods = (kind.load_state_dict, kind._load_from_state_dict, kind.set_extra_state)
    hooks = (module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks)
    return any(hooks) or not all(str(method.__module__).startswith("torch.") for method in methods)
