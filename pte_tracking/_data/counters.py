"""Numbers that a sampler or a loader keeps in its attributes, such as its own count of the epochs.

Only attributes that change after the construction are part of a snapshot. Options that the script gives, such as a
batch size, are therefore never restored.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from pte_tracking._data.equality import is_equal
from pte_tracking._data.object_search import attributes_of
from pte_tracking._data.object_states import is_state_object
from pte_tracking._snapshots.generator_state import is_generator

#: Longer sequences are not saved.
MAX_ITEMS = 2**17
_MAX_PLAIN_ITEMS = 64
_SCALARS = frozenset((int, float, bool, type(None)))
_UNSUPPORTED: Any = object()
_WITHOUT_COUNTERS = (dict, list, tuple, deque, types.FunctionType, types.MethodType, functools.partial)


def counters_of(path: str, value: Any, initial: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the numbers in the attributes of an object.

    These are all numbers of a sampler or an object with a state, and the integers of any other object.

    Args:
        path: Path of the object from the loader.
        value: The object.
        initial: Its numbers at the construction. An attribute of the class that has changed since is left out: it
            belongs to all objects of the class, and cannot be restored as an attribute of one. Defaults to none.

    Returns:
        Copies of the values by attribute name: plain values, and sequences of numbers as a dictionary of their kind.
    """
    if isinstance(value, _WITHOUT_COUNTERS) or is_generator(value):
        return {}
    has_state = is_state_object(path, value)
    # A function may refer to any object of the program.
    if not has_state and ("__closure__" in path or "__self__" in path):
        return {}
    if hasattr(type(value), "__next__") and type(value).__module__.startswith("torch"):
        return {}  # An iterator over a DataLoader counts its batches.
    attributes = attributes_of(value)
    for kind in type(value).__mro__[:-1]:  # A counter may be an attribute of the class before it is first changed.
        for name, item in vars(kind).items():
            if type(item) is int and not name.startswith("__") and (initial or {}).get(name, item) == item:
                attributes.setdefault(name, item)
    if has_state or is_sampler(path, value):
        supported = {name: _copy(item) for name, item in attributes.items()}
        return {name: item for name, item in supported.items() if item is not _UNSUPPORTED}
    is_loader = isinstance(value, DataLoader)  # Its private attributes are those of torch.
    return {
        name: item
        for name, item in attributes.items()
        if type(item) is int and not (is_loader and name.startswith("_"))
    }


def is_sampler(path: str, value: object) -> bool:
    """Whether an object is a sampler: by its class, or by the attribute that refers to it."""
    return isinstance(value, Sampler) or (path.rpartition(".")[2] in ("sampler", "batch_sampler"))


def changed_names(initial: Mapping[str, Any], *later: Mapping[str, Any]) -> set[str]:
    """Return the names of the values that differ from their initial value at any later time."""
    return {
        name
        for values in later
        for name, item in values.items()
        if name not in initial or not is_equal(initial[name], item)
    }


def set_counters(value: Any, counters: Mapping[str, Any]) -> None:
    """Set attributes of an object to values that :func:`counters_of` returned.

    Sequences are changed in place, because other objects may refer to them. An attribute that now has a value of
    another kind, or of another length, is not changed.
    """
    attributes = attributes_of(value)
    for name, saved in counters.items():
        current = _copy(attributes.get(name, getattr(type(value), name, None)))
        if current is _UNSUPPORTED or name.startswith("__") or is_equal(current, saved):
            continue
        if type(saved) in _SCALARS and not isinstance(current, dict):
            _set_attribute(value, name, saved)
        elif isinstance(saved, dict) and current is None:
            _set_attribute(value, name, _build(saved))
        elif isinstance(saved, dict) and _kind_and_length(saved) == _kind_and_length(current):
            _assign(attributes[name], saved, value, name)


def _copy(value: Any) -> Any:
    """Return a copy of a plain value; ``_UNSUPPORTED`` for all other values."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind in (list, tuple):
        return _copy_sequence(value)
    if kind is dict and len(value) <= _MAX_PLAIN_ITEMS and all(type(item) in _SCALARS for item in value.values()):
        return {"dict": dict(value)} if all(type(key) in (str, int) for key in value) else _UNSUPPORTED
    if kind is Tensor:
        is_copied = value.device.type == "cpu" and value.layout is torch.strided and value.numel() <= MAX_ITEMS
        return {"tensor": value.detach().clone()} if is_copied else _UNSUPPORTED
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray:
        is_copied = value.dtype.kind in "iufb" and value.size <= MAX_ITEMS and value.itemsize <= 8
        return {"array": torch.from_numpy(value.copy())} if is_copied else _UNSUPPORTED
    if numpy is not None and isinstance(value, numpy.integer | numpy.floating):
        return value.item()
    return _UNSUPPORTED


def _copy_sequence(value: list[Any] | tuple[Any, ...]) -> Any:
    if not 0 < len(value) <= MAX_ITEMS or type(value[0]) not in _SCALARS:
        return _UNSUPPORTED
    kinds = set(map(type, value))
    if kinds == {int} and len(value) > _MAX_PLAIN_ITEMS and -(2**63) <= min(value) <= max(value) < 2**63:
        return {type(value).__name__: torch.tensor(value)}
    return {type(value).__name__: list(value)} if kinds <= _SCALARS else _UNSUPPORTED


def _kind_and_length(copied: Any) -> Any:
    if not isinstance(copied, dict) or len(copied) != 1:
        return None
    ((kind, content),) = copied.items()
    return kind if kind == "dict" else (kind, len(content))


def _build(saved: Mapping[str, Any]) -> Any:
    """Return a new value from its copy."""
    ((kind, content),) = saved.items()
    if kind in ("list", "tuple"):
        items = content.tolist() if isinstance(content, Tensor) else content
        return tuple(items) if kind == "tuple" else list(items)
    if kind == "dict":
        return dict(content)
    return content.numpy().copy() if kind == "array" else content.clone()


def _assign(target: Any, saved: Mapping[str, Any], owner: Any, name: str) -> None:
    """Change a sequence or a dictionary to its saved content."""
    built = _build(saved)
    if isinstance(target, list):
        target[:] = built
    elif isinstance(target, dict):
        target.clear()
        target.update(built)
    elif isinstance(target, tuple):
        _set_attribute(owner, name, built)
    elif target.shape == built.shape:
        target[...] = built


def _set_attribute(owner: Any, name: str, value: Any) -> None:
    """Set an attribute in a slot or in ``__dict__``, without running code of the object."""
    descriptor = inspect.getattr_static(type(owner), name, None)
    if isinstance(descriptor, types.MemberDescriptorType):
        descriptor.__set__(owner, value)
    elif not hasattr(type(descriptor), "__set__"):
        object.__getattribute__(owner, "__dict__")[name] = value
