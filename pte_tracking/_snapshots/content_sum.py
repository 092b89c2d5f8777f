"""Sums of the bits of tensors, which compare large tensors without a copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}


def content_sum(tensor: Tensor) -> Tensor:
    """Return two sums of the bits of a dense tensor, on its device. Equal tensors have equal sums.

    Args:
        tensor: The tensor.
    """
    words = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1).view(_WORDS[tensor.element_size()])
    return torch.stack([words.sum(dtype=torch.int64), words[::2].sum(dtype=torch.int64)])


def is_summable(value: Any) -> bool:
    """Return whether a value is a dense tensor with elements that can be summed."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not (value.is_quantized or value.is_meta)


def to_numbers(sums: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return sums as numbers. Waits once for each device.

    Args:
        sums: Sums by name.
    """
    numbers: dict[str, tuple[int, ...]] = {}
    by_device: dict[torch.device, list[str]] = {}
    for name, value in sums.items():
        by_device.setdefault(value.device, []).append(name)
    for names in by_device.values():
        rows = torch.stack([sums[name] for name in names]).tolist()
        numbers.update(zip(names, map(tuple, rows), strict=True))
    return numbers
