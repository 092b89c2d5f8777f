"""Conversion of a reported value to a number, or to a tensor without dimensions on another device."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from pte_tracking._store.values import to_number

#: An observed number; a tensor without dimensions where it still lies on another device.
Value: TypeAlias = int | float | Tensor
Observation: TypeAlias = dict[str, Value]

_SINGLE_PRECISION = {"mps", "xpu"}  # Metal, and Intel's small ones, have no double


def to_value(key: str, value: Any) -> Value:
    if not isinstance(value, Tensor):
        return to_number(key, value)
    if value.is_cpu:
        try:
            number = value.item()
        except RuntimeError:  # several elements: to_number() says which value it is
            return to_number(key, value)
        return number if type(number) is float else to_number(key, number)
    return to_device_scalar(key, value, copy=True)


def to_device_scalar(key: str, value: Tensor, *, copy: bool) -> Tensor:
    if value.numel() != 1 or value.is_complex() or value.is_meta:
        to_number(key, value)  # raises what it would for a tensor of the host
    precision = torch.float32 if value.device.type in _SINGLE_PRECISION else torch.float64
    if not copy and value.dtype is precision and not value.shape and not value.requires_grad:
        return value  # as report() left it
    return value.detach().to(precision, copy=copy).reshape(())
