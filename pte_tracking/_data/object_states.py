"""States of the objects below a loader that have ``state_dict()`` and ``load_state_dict()``."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader

from pte_tracking._data.equality import is_equal
from pte_tracking._data.object_search import attributes_of
from pte_tracking._snapshots.plain_state import map_tensors, to_plain

#: Larger states are not saved: each snapshot would contain them twice.
MAX_BYTES = 1 << 25
#: Key of a dictionary that stands for an array.
_ARRAY = "numpy array"
#: Their states are positions within a pass, which is empty if it starts from the end of the pass before.
_POSITION_PACKAGES = frozenset(("accelerate", "torch", "torchdata"))


def is_state_object(path: str, value: object) -> bool:
    """Whether an object below a loader saves and restores a state of its own.

    Args:
        path: Path of the object from the loader. The state of the loader itself, with an empty path, is its position.
        value: The object.
    """
    kind: Any = type(value)
    if not path or not _has_methods(kind) or isinstance(value, DataLoader):
        return False
    if kind.__module__.partition(".")[0] in _POSITION_PACKAGES:
        return False
    # A function may refer to any object of the program, such as one that trains the model.
    return not (("__closure__" in path or "__self__" in path) and _refers_to_model(value))


def save_state(value: Any) -> Any:
    """Return a copy of the state of an object: tensors, plain values, and arrays as a dictionary with one tensor.

    Args:
        value: The object.

    Raises:
        TypeError: If the state contains any other value. The message names its position.
        ValueError: If the state is larger than ``MAX_BYTES``.
        Exception: If ``state_dict()`` fails.
    """
    state = to_plain(_without_arrays(value.state_dict()), "state_dict()")
    if (size := _count_bytes(state)) > MAX_BYTES:
        raise ValueError(f"state_dict(): the state has {size >> 20} MiB, and at most {MAX_BYTES >> 20} MiB are saved.")
    return map_tensors(state, lambda tensor, _: tensor.cpu().clone())


def load_state(value: Any, state: Any) -> None:
    """Restore a state that :func:`save_state` returned.

    Args:
        value: The object.
        state: The state, which is copied.

    Raises:
        Exception: If ``load_state_dict()`` fails.
    """
    value.load_state_dict(_with_arrays(map_tensors(state, lambda tensor, _: tensor.clone())))


def has_state(value: Any, state: Any) -> bool:
    """Whether the state of an object equals one that :func:`save_state` returned."""
    try:
        return is_equal(save_state(value), state)
    except Exception:
        return False


@functools.cache
def takes_arguments(method: Callable[..., Any], count: int) -> bool:
    """Whether a method can be called with a number of arguments, in addition to its object."""
    try:
        inspect.signature(method).bind(*range(count + 1))
    except TypeError:
        return False
    except ValueError:
        return True  # builtins have no signature
    return True


@functools.cache
def _has_methods(kind: type[Any]) -> bool:
    save, load = getattr(kind, "state_dict", None), getattr(kind, "load_state_dict", None)
    return callable(save) and callable(load) and takes_arguments(save, 0) and takes_arguments(load, 1)


def _refers_to_model(value: object) -> bool:
    for item in attributes_of(value).values():
        items = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else (item,)
        if any(isinstance(part, nn.Module | optim.Optimizer) for part in items):
            return True
    return False


def _without_arrays(value: Any) -> Any:
    kind = type(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray:
        return {_ARRAY: torch.from_numpy(value.copy())}
    if kind is dict:
        return {key: _without_arrays(item) for key, item in value.items()}
    return kind(map(_without_arrays, value)) if kind in (list, tuple) else value


def _with_arrays(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        if value.keys() == {_ARRAY}:
            return value[_ARRAY].numpy()
        return {key: _with_arrays(item) for key, item in value.items()}
    return kind(map(_with_arrays, value)) if kind in (list, tuple) else value


def _count_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(_count_bytes(key) + _count_bytes(item) for key, item in value.items())
    return sum(map(_count_bytes, value)) if isinstance(value, list | tuple | set) else 8
