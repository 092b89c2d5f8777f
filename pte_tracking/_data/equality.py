"""Equality of plain values and tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_equal(first: Any, second: Any) -> bool:
    """Whether two plain values are equal, also in their types."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(is_equal(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return type(first) is type(second) and bool(first == second)
