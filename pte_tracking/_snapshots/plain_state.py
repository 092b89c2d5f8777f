"""Plain states: tensors and plain values that ``torch.load`` reads with its safe default."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking.reporter import WeightedValue

_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device))
_SEQUENCES = (list, tuple, set)
_MAPPINGS = (dict, OrderedDict, Counter)
_MAX_INTEGER_BITS = 255 * 8 - 1  # torch's safe loader does not read longer integers


def to_plain(value: Any, path: str = "") -> Any:
    """Convert a state to new containers of detached tensors and plain values.

    Tensors share memory with those of the state. Views of a larger storage are copied, because torch would save the
    complete storage. NumPy scalars become Python values. A value that would be restored with another type is an error.

    Args:
        value: The state.
        path: Position of the value in a larger state, for the error message.

    Returns:
        The plain state.

    Raises:
        TypeError: If the state contains any other value. The message names its position, such as
            ``extensions/LogReport/extension/rows``.
    """
    try:
        return _convert(value)
    except _UnsupportedError as error:
        position = "/".join((*([path] if path else []), *reversed(error.keys)))
        raise TypeError(f"{position}: {error}") from None


class _UnsupportedError(Exception):
    """Raised for a value that cannot be saved. The containers around the value add their keys."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.keys: list[str] = []


def _convert(value: Any) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        if _is_long(value):
            size = value.bit_length()
            raise _UnsupportedError(f"an integer of {size} bits cannot be saved in a snapshot. Save it as text.")
        return value
    if isinstance(value, Tensor):
        return _tensor(value)
    if kind is WeightedValue:
        return float(value)
    if kind in _MAPPINGS:
        return _mapping(value)
    if kind in _SEQUENCES:
        return _sequence(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and type(value.item()) in _ATOMS:
        return value.item()
    raise _UnsupportedError(f"{_type_name(kind)} cannot be saved in a snapshot. {_advice(kind)}")


def _is_long(value: Any) -> bool:
    return type(value) is int and value.bit_length() > _MAX_INTEGER_BITS


def _tensor(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        raise _UnsupportedError("the parameter is not initialized. Run the model once on an example before training.")
    if type(tensor) is not Tensor or tensor.requires_grad:
        tensor = tensor.detach()
    # A conjugate or negated view has the memory of another tensor.
    tensor = tensor.resolve_conj().resolve_neg()
    if type(tensor) is not Tensor and not is_sharded(tensor):
        raise _UnsupportedError(f"{_type_name(type(tensor))} cannot be saved in a snapshot. Return plain tensors.")
    if type(tensor) is Tensor and tensor.layout is torch.strided and tensor.untyped_storage().nbytes() > tensor.nbytes:
        return tensor.clone()
    return tensor


def _sequence(value: Any) -> Any:
    kind = type(value)
    if _ATOMS.issuperset(map(type, value)) and not any(map(_is_long, value)):
        return kind(value)  # such as the 625 numbers of Python's random state
    items: list[Any] = []
    try:
        items.extend(map(_convert, value))
    except _UnsupportedError as error:
        error.keys.append(str(len(items)))
        raise
    return kind(items)


def _mapping(value: Any) -> Any:
    copied = type(value)()
    key: Any = None
    try:
        # Most keys and values are plain. A large state has many.
        for key, item in value.items():
            plain = type(item) in _ATOMS and type(item) is not int
            copied[key if type(key) is str else _convert(key)] = item if plain else _convert(item)
        # The versions of the submodules. torch needs them to read older states.
        if type(value) is OrderedDict and hasattr(value, "_metadata"):
            key = "_metadata"
            copied._metadata = _convert(value._metadata)
    except _UnsupportedError as error:
        error.keys.append(str(key))
        raise
    return copied


def _type_name(kind: type) -> str:
    return f"a value of type {kind.__module__}.{kind.__qualname__}"


def _advice(kind: type) -> str:
    if kind.__module__ == "numpy":
        return "Save torch.as_tensor(value), and call numpy() on the restored tensor."
    if issubclass(kind, dict | list | tuple | set) or kind.__name__ == "deque":
        return "Save a plain dict, list, or tuple, and convert it back when it is restored."
    return "Save tensors, numbers, strings, and containers of them."


def map_tensors(value: Any, function: Callable[[Tensor, str], Tensor], path: str = "") -> Any:
    """Replace the tensors of a plain state.

    Args:
        value: The plain state.
        function: Receives each tensor and its position, such as ``models/main/weight``, and returns the replacement.
        path: Position of the value in a larger state.

    Returns:
        The state in new containers with the replaced tensors.
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
