"""Size of the content of a loaded snapshot, which a small file can claim to be much larger than the file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Tensors may share memory in the file, such as tied weights, and are copied one by one.
_MAX_RATIO = 16
_MAX_SMALL_BYTES = 64 << 20
_MAX_DEPTH = 200


def find_excess(state: dict[str, Any], size: int) -> str | None:
    """Return why a loaded state must not be used, or None.

    Tensors whose elements share memory, and lists that contain one object many times, take little space in the file,
    and all memory or hours once they are copied.

    Args:
        state: The loaded state. Nothing in it is copied.
        size: Size of the snapshot in bytes.
    """
    max_bytes = _MAX_RATIO * size + _MAX_SMALL_BYTES
    try:
        claimed = _count_bytes(state, {}, 0)
    except RecursionError:
        return f"not loaded, because its content is nested more than {_MAX_DEPTH} levels deep"
    if claimed > max_bytes:
        return f"not loaded, because its content claims {claimed} bytes in a snapshot of {size} bytes"
    return None


def _count_bytes(value: Any, counts: dict[int, int], depth: int) -> int:
    """Return the bytes of a value if each reference to an object becomes a copy."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size() if value.layout == torch.strided else 0
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if depth > _MAX_DEPTH:
        raise RecursionError
    if id(value) not in counts:
        items = [*value, *value.values()] if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_bytes(item, counts, depth + 1) for item in items)
    return counts[id(value)]
