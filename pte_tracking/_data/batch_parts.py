"""Parts of a batch: its tensors, arrays, texts, and numbers, by their paths in nested containers and objects.

No code of the batch runs: containers and objects are read without their own methods and properties.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import is_dataclass
from operator import itemgetter
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from pte_tracking._data.object_search import attributes_of

_MAX_DEPTH = 16
_MAX_VALUES = 256  # Each costs up to 20 µs.
_MAX_NAME_LENGTH = 80

_ATOMS = (str, bytes, bytearray, int, float, complex, type(None))
_SEQUENCES = (list, tuple, deque)
#: Values whose attributes are code or weights, and no data.
_OPAQUE = (type, FunctionType, ModuleType, nn.Module, set, frozenset)


def find_parts(batch: object) -> dict[str, Any]:
    """Return the parts of a batch by path, such as ``"['image']"`` or ``".edge_index"``.

    A list or tuple is a part in addition to its items, because its length may be the batch size. Of an object that is
    not a dataclass, those attributes are parts that are or contain tensors and arrays. The object itself is a part
    without content. Values beyond a depth of 16 or after the first 256 are no parts.

    Args:
        batch: The batch.

    Returns:
        The parts in the order of their paths, because the order of a dictionary may differ between processes.
    """
    return dict(sorted(_Search().walk(batch, "", _MAX_DEPTH, is_data=True)))


def is_array(value: object) -> bool:
    """Return whether a value is a NumPy array or scalar. NumPy is not imported."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


class _Search:
    """Search of one batch, which visits each container once."""

    def __init__(self) -> None:
        self._count = 0
        self._containers: set[int] = set()

    def walk(self, value: object, path: str, max_depth: int, *, is_data: bool) -> Iterator[tuple[str, Any]]:
        """Yield the parts of a value.

        Args:
            value: The value.
            path: Its path.
            max_depth: Maximum depth of the value.
            is_data: Whether texts and numbers are parts. Those of unknown objects may be caches or times.
        """
        self._count += 1
        if self._count > _MAX_VALUES or max_depth < 0:
            return
        if isinstance(value, Tensor) or is_array(value):
            yield path, value
            return
        if is_data and not isinstance(value, dict):
            yield path, value
        if isinstance(value, _ATOMS + _OPAQUE) or id(value) in self._containers:
            return
        self._containers.add(id(value))
        has_data = is_data and (isinstance(value, (dict, *_SEQUENCES)) or is_dataclass(value))
        for name, item in _items(value):
            yield from self.walk(item, path + name, max_depth - 1, is_data=has_data)


def _items(value: object) -> Iterator[tuple[str, object]]:
    """Yield the content of a container or object, with the name of each item as the end of a path."""
    if isinstance(value, dict):
        # In an order that is the same in each process, because the number of values is limited.
        for name, item in sorted(((_describe_key(key), item) for key, item in dict.items(value)), key=itemgetter(0)):
            yield f"[{name}]", item
    elif isinstance(value, _SEQUENCES):
        fields = getattr(type(value), "_fields", None)  # of a named tuple
        for index, item in enumerate(_raw_items(value)):
            yield f".{fields[index]}" if isinstance(fields, tuple) else f"[{index}]", item
    else:
        for name, item in attributes_of(value).items():
            yield f".{name}"[:_MAX_NAME_LENGTH], item


def _raw_items(value: object) -> Iterator[object]:
    """Iterate over a list, tuple, or deque whose class may define another iteration."""
    kind = next(kind for kind in _SEQUENCES if isinstance(value, kind))
    return kind.__iter__(value)  # type: ignore[arg-type]


def _describe_key(key: object) -> str:
    if type(key) in (str, int, bool, bytes):
        return repr(key)[:_MAX_NAME_LENGTH]
    return type(key).__name__
