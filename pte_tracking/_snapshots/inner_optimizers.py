"""Optimizers of torch, also inside objects that wrap them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pte_tracking._distributed.zero_redundancy import is_zero_redundancy
from pte_tracking._snapshots.plain_state import map_tensors

_MAX_DEPTH = 3
_ATOMS = frozenset((type(None), bool, int, float, str))
#: Parameters, their states, and the hooks of an optimizer.
_WITHOUT_OPTIMIZERS = frozenset(
    (
        "state",
        "param_groups",
        "_optimizer_step_pre_hooks",
        "_optimizer_step_post_hooks",
        "_optimizer_state_dict_pre_hooks",
        "_optimizer_state_dict_post_hooks",
        "_optimizer_load_state_dict_pre_hooks",
        "_optimizer_load_state_dict_post_hooks",
    )
)


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
    if not depth:
        return
    for name, value in _children(target):
        if type(value) not in _ATOMS and (isinstance(value, list | tuple | dict) or _steps(value)):
            yield from _search(value, f"{path}.{name}" if path else str(name), depth - 1)


def _steps(value: object) -> bool:
    return not isinstance(value, type) and hasattr(value, "step") and hasattr(value, "state_dict")


def _children(target: object) -> Iterable[tuple[object, object]]:
    if isinstance(target, dict):
        return target.items()
    if isinstance(target, list | tuple):
        return enumerate(target)
    attributes = vars(target) if hasattr(target, "__dict__") else {}
    return [item for item in attributes.items() if item[0] not in _WITHOUT_OPTIMIZERS]


def _addresses(state: object) -> set[int]:
    addresses: set[int] = set()

    def collect(tensor: Tensor, path: str) -> Tensor:
        addresses.add(tensor.data_ptr())
        return tensor

    map_tensors(state, collect)
    return addresses
