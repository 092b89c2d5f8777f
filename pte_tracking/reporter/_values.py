"""Conversion of a reported value to a number, or to a value that stands for a number that is not known yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pte_tracking._store.printable import describe_value
from pte_tracking._store.values import to_number

_MAX_WEIGHT = 1e100  # Sums of weighted numbers remain finite.

# Types of devices without double precision: Metal, and some GPUs of Intel.
_SINGLE_PRECISION = {"mps", "xpu"}


class WeightedValue(float):
    """Reported number together with its weight in means. In every other respect it is a plain number.

    Attributes:
        weight: Weight of the number.
    """

    __slots__ = ("weight",)

    weight: float

    def __new__(cls, number: float, weight: float) -> WeightedValue:
        value = super().__new__(cls, number)
        value.weight = weight
        return value


class DeferredValue:
    """Reported function without arguments. It is called once, when its number is first needed.

    Args:
        key: Key of the value, for error messages.
        function: Function that returns a number.
        weight: Weight of the number in means.
    """

    __slots__ = ("_error", "_function", "_key", "_number", "weight")

    def __init__(self, key: str, function: Callable[[], Any], weight: float = 1) -> None:
        self.weight = weight
        self._key = key
        self._function: Callable[[], Any] | None = function
        self._number = 0.0
        self._error: Exception | None = None

    def __call__(self) -> float:
        """Return the number.

        Raises:
            RuntimeError: If the function raised an exception.
        """
        # The function is released, because it may refer to large objects.
        function, self._function = self._function, None
        if function is not None:
            try:
                self._number = to_number(self._key, function())
            except Exception as error:
                self._error = error
        if self._error is not None:
            raise RuntimeError(
                f"values[{self._key!r}]: the reported function failed with {type(self._error).__name__}: {self._error}"
            ) from self._error
        return self._number

    def __float__(self) -> float:
        return float(self())


#: A reported number. On another device it is a tensor without dimensions.
Value: TypeAlias = int | float | Tensor | DeferredValue
Observation: TypeAlias = dict[str, Value]


def to_value(key: str, value: Any) -> Value:
    """Convert a value to a number, or to a tensor or a function that yields the number later.

    Args:
        key: Key of the value, for error messages.
        value: Number, tensor of one element, function that returns one, or pair of such a value and its weight.

    Raises:
        TypeError: If the value or its weight is not a real number.
        ValueError: If the value has several elements, or the weight is negative or not finite.
    """
    if isinstance(value, Tensor):
        return to_number(key, value) if value.is_cpu else to_device_scalar(key, value, copy=True)
    if isinstance(value, tuple):
        return _to_weighted(key, value)
    if callable(value) and is_deferred(value):
        return DeferredValue(key, value)
    return to_number(key, value)


def is_deferred(value: object) -> bool:
    """Return whether a callable object is a function that returns a number, and not a number or a model."""
    if isinstance(value, DeferredValue):
        return True
    return not isinstance(value, type | nn.Module) and not hasattr(value, "item") and not hasattr(value, "__float__")


def to_weight(key: str, weight: Any) -> float:
    """Return a weight as a number.

    Args:
        key: Key of the weighted value, for error messages.
        weight: The weight.

    Raises:
        TypeError: If the weight is not a real number.
        ValueError: If the weight is negative or not finite.
    """
    try:
        number = to_number(key, weight)
    except (TypeError, ValueError):
        raise TypeError(
            f"values[{key!r}]: expected a real number as the weight, got {describe_value(weight)}"
        ) from None
    if not 0 <= number <= _MAX_WEIGHT:
        raise ValueError(f"values[{key!r}]: expected a finite weight of at least 0, got {weight!r}")
    return number


def weight_of(value: Any) -> float:
    """Return the weight of a reported value in means.

    Args:
        value: Value of an observation.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking.reporter import weight_of
        >>> reporter = pte.Reporter()
        >>> reporter.report({"loss": 0.5, "accuracy": (0.75, 32)})
        >>> {key: weight_of(value) for key, value in reporter.observation.items()}
        {'loss': 1, 'accuracy': 32}
    """
    if isinstance(value, Tensor):
        return getattr(value, "report_weight", 1)
    return value.weight if isinstance(value, WeightedValue | DeferredValue) else 1


def has_narrow_source(value: Tensor) -> bool:
    """Return whether a reported tensor had a type without the range of double precision, so no sum overflows."""
    return getattr(value, "has_narrow_source", False) or value.dtype is not torch.float64


def to_device_scalar(key: str, value: Tensor, *, copy: bool) -> Tensor:
    """Return a tensor on another device in double precision, if the device has it, without dimensions.

    Args:
        key: Key of the value, for error messages.
        value: Tensor of one element.
        copy: Whether a later change of the tensor in place must have no effect.
    """
    if value.numel() != 1 or value.is_complex() or value.is_meta:
        # Raises the same error as for a tensor on the host.
        to_number(key, value)
    precision = torch.float32 if value.device.type in _SINGLE_PRECISION else torch.float64
    if not copy and value.dtype is precision and not value.shape and not value.requires_grad:
        # report() has converted the value already.
        return value
    scalar = value.detach().to(precision, copy=copy).reshape(())
    scalar.has_narrow_source = value.dtype is not torch.float64  # type: ignore[attr-defined]
    return scalar


def _to_weighted(key: str, pair: tuple[Any, ...]) -> Value:
    if len(pair) != 2 or isinstance(pair[0], tuple):
        raise TypeError(f"values[{key!r}]: expected a number or a pair (value, weight), got {pair!r}")
    weight = to_weight(key, pair[1])
    value = to_value(key, pair[0])
    if isinstance(value, Tensor):
        value.report_weight = weight  # type: ignore[attr-defined]
        return value
    if isinstance(value, DeferredValue):
        value.weight = weight
        return value
    return WeightedValue(value, weight)
