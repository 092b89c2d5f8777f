"""Optimizers of torch, also inside objects that wrap them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pte_tracking._distributed.zero_redundancy import is_zero_redundancy
from pte_tracking._snapshots.plain_state import map_tensors

_MAX_DEPTH = 3


def torch_optimizers(target: object) -> dict[str, Optimizer]:
    """Return the optimizers of torch that an object is or contains, by the path of attributes.

    Args:
        target: An optimizer, or an object with optimizers as attributes, such as one that averages their steps.

    Returns:
        The optimizers. The object itself has an empty path.
    """
    found: dict[int, tuple[str, Optimizer]] = {}
    for path, optimizer in _search(target, "", _MAX_DEPTH):
        found.setdefault(id(optimizer), (path, optimizer))
    return dict(found.values())


def save_unsaved(target: object, state: object) -> dict[str, dict[str, Any]]:
    """Return the states of inner optimizers that the state of their wrapper does not contain, by path.

    Args:
        target: The wrapper.
        state: Its state.
    """
    if is_zero_redundancy(target):
        return {}
    inner = {path: optimizer for path, optimizer in torch_optimizers(target).items() if path}
    saved = _addresses(state) if inner else set()
    states = {path: optimizer.state_dict() for path, optimizer in inner.items()}
    return {path: own for path, own in states.items() if (addresses := _addresses(own)) and not addresses & saved}


def _search(target: object, path: str, depth: int) -> Iterator[tuple[str, Optimizer]]:
    # A wrapper may be an optimizer by name only, without the hooks that torch creates.
    if isinstance(target, Optimizer) and "_optimizer_step_post_hooks" in vars(target):
        yield path, target
    for name, value in _children(target):
        if depth and (isinstance(value, list | tuple | dict) or _steps(value)):
            yield from _search(value, f"{path}.{name}" if path else name, depth - 1)


def _steps(value: object) -> bool:
    return not isinstance(value, type) and hasattr(value, "step") and hasattr(value, "state_dict")


def _children(target: object) -> Iterator[tuple[str, object]]:
    if isinstance(target, Mapping):
        return ((str(key), value) for key, value in target.items())
    if isinstance(target, list | tuple):
        return ((str(index), value) for index, value in enumerate(target))
    attributes = vars(target) if hasattr(target, "__dict__") else {}
    # Parameters and their states, which contain no optimizer.
    return ((name, value) for name, value in attributes.items() if name not in ("state", "param_groups"))


def _addresses(state: object) -> set[int]:
    addresses: set[int] = set()

    def collect(tensor: Tensor, path: str) -> Tensor:
        addresses.add(tensor.data_ptr())
        return tensor

    map_tensors(state, collect)
    return addresses
