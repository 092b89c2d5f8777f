"""States that anybody can read: tensors and plain values, which ``torch.load`` takes in its safe default."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pte_tracking._distributed.sharding import is_sharded

_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device))
_SEQUENCES = (list, tuple, set)
_MAPPINGS = (dict, OrderedDict, Counter)


def to_plain(value: Any, path: str = "") -> Any:
    """The same state in new containers, of tensors without graphs and plain values.

    Tensors share their memory with the state's, but for views of a small part of a larger storage: of those torch would
    save all of it, so they are copied. NumPy's numbers become Python's. What would come back as something else is
    refused.

    Args:
        value: The state.
        path: Where it stands in a larger one, for the error.

    Raises:
        TypeError: There is something else in it; its place is named, such as ``extensions/LogReport/extension/rows``.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, Tensor):
        return _tensor(value, path)
    if kind in _MAPPINGS:
        return _mapping(value, path)
    if kind in _SEQUENCES:
        return kind(to_plain(item, f"{path}/{index}") for index, item in enumerate(value))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and type(value.item()) in _ATOMS:
        return value.item()
    raise TypeError(f"{path}: {_type_name(kind)} cannot be saved in a snapshot; {_advice(kind)}")


def _tensor(tensor: Tensor, path: str) -> Tensor:
    if is_lazy(tensor):
        raise TypeError(f"{path}: not initialized yet; run the model once on an example before the training")
    tensor = tensor.detach()
    if type(tensor) is not Tensor and not is_sharded(tensor):
        raise TypeError(f"{path}: {_type_name(type(tensor))} cannot be saved in a snapshot that is read without it")
    if type(tensor) is Tensor and tensor.layout is torch.strided and tensor.untyped_storage().nbytes() > tensor.nbytes:
        return tensor.clone()
    return tensor


def _mapping(value: Any, path: str) -> Any:
    copied = type(value)()
    for key, item in value.items():
        copied[to_plain(key, f"{path}/{key!r}")] = to_plain(item, f"{path}/{key}" if path else str(key))
    # The versions of a module's parts, by which torch reads older states.
    if hasattr(value, "_metadata"):
        copied._metadata = to_plain(value._metadata, f"{path}/_metadata")
    return copied


def _type_name(kind: type) -> str:
    return f"a value of type {kind.__module__}.{kind.__qualname__}"


def _advice(kind: type) -> str:
    if kind.__module__ == "numpy":
        return "return torch.as_tensor(value) from state_dict(), and value.numpy() is the array again"
    if issubclass(kind, dict | list | tuple | set) or kind.__name__ == "deque":
        return "return a plain dict, list or tuple of it from state_dict(), and make it again in load_state_dict()"
    return "return tensors, numbers, strings and containers of them from state_dict()"


def map_tensors(value: Any, function: Callable[[Tensor, str], Tensor], path: str = "") -> Any:
    """The same plain state with other tensors.

    Args:
        value: What :func:`plain` returned.
        take: Gives the tensor that stands in place of another; it is told its place, such as ``models/main/weight``.
        path: Where the state stands in a larger one.
    """
    if isinstance(value, Tensor):
        return function(value, path)
    kind = type(value)
    if kind in _MAPPINGS:
        mapped: Any = kind()
        for key, item in value.items():
            mapped[key] = map_tensors(item, function, f"{path}/{key}" if path else str(key))
        if hasattr(value, "_metadata"):
            mapped._metadata = value._metadata
        return mapped
    if kind in _SEQUENCES:
        return kind([map_tensors(item, function, f"{path}/{index}") for index, item in enumerate(value)])
    return value
