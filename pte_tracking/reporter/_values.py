"""Conversion of a reported value to a number, or to a tensor without dimensions on another device."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from pte_tracking._store.values import to_number

#: A reported number. On another device it is a tensor without dimensions.
Value: TypeAlias = int | float | Tensor
Observation: TypeAlias = dict[str, Value]

# Types of devices without double precision: Metal, and some GPUs of Intel.
_SINGLE_PRECISION = {"mps", "xpu"}


def to_value(key: str, value: Any) -> Value:
    if not isinstance(value, Tensor):
        return to_number(key, value)
    if value.is_cpu:
        try:
            number = value.item()
        except RuntimeError:
            # The tensor has several elements. to_number() raises an error that names the key.
            return to_number(key, value)
        return number if type(number) is float else to_number(key, number)
    return to_device_scalar(key, value, copy=True)


def to_device_scalar(key: str, value: Tensor, *, copy: bool) -> Tensor:
    if value.numel() != 1 or value.is_complex() or value.is_meta:
        # Raises the same error as for a tensor on the host.
        to_number(key, value)
    precision = torch.float32 if value.device.type in _SINGLE_PRECISION else torch.float64
    if not copy and value.dtype is precision and not value.shape and not value.requires_grad:
        # report() has converted the value already.
        return value
    return value.detach().to(precision, copy=copy).reshape(())
