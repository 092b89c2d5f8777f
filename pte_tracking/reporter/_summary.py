"""Mean and standard deviation of reported values."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from pte_tracking._store.values import to_number
from pte_tracking.reporter._values import (
    DeferredValue,
    has_narrow_source,
    to_device_scalar,
    to_value,
    to_weight,
    weight_of,
)

# Sums of large numbers, or of their squares, would overflow. Numbers from this limit on are scaled before they are
# added. Powers of two scale without rounding errors.
_LARGE = 1e100
_MINUS_LARGE = -_LARGE
_SCALE = 2.0**-680


class SummaryState(TypedDict):
    """State of a :class:`Summary`. All entries are sums, so states can be added.

    Attributes:
        n: Sum of the weights.
        x: Weighted sum of the values below 1e100.
        x2: Weighted sum of the squares of these values.
        large_x: Weighted sum of the other finite values, each multiplied by 2**-680.
        large_x2: Weighted sum of the squares of these products.
    """

    n: float
    x: float
    x2: float
    large_x: float
    large_x2: float


class Summary:
    """Mean and standard deviation of a sequence of numbers, in double precision.

    Numbers near the limit of double precision are averaged without overflow.

    Example:
        >>> import pte_tracking as pte
        >>> summary = pte.Summary()
        >>> for number in (1, 2, 3, 6):
        ...     summary.add(number)
        >>> summary.compute_mean()
        3.0
        >>> summary.add(9, weight=2)
        >>> summary.compute_mean()
        5.0
    """

    __slots__ = ("large_x", "large_x2", "n", "x", "x2")

    def __init__(self) -> None:
        self.n: float = 0
        self.x = self.x2 = self.large_x = self.large_x2 = 0.0

    def add(self, value: Any, weight: float = 1) -> None:
        """Add a number.

        Args:
            value: A real number or a tensor of one element, which is read immediately.
            weight: Weight of the number in the mean, finite and at least 0. Defaults to 1.

        Raises:
            TypeError: If the value is not a real number.
            ValueError: If the value has several elements, or the weight is negative or not finite.
        """
        self.add_number(to_number("value", value), to_weight("value", weight))

    def add_number(self, number: float, weight: float) -> None:
        """Add a Python number without checking it."""
        if not weight:
            return  # A number without weight has no effect, also if it is NaN.
        self.n += weight
        if _LARGE <= abs(number) < math.inf:
            scaled = number * _SCALE
            self.large_x += weight * scaled
            self.large_x2 += weight * scaled * scaled
            return
        self.x += weight * number
        self.x2 += weight * number * number

    def compute_mean(self) -> float:
        """Return the weighted mean; NaN if no number was added."""
        if not self.n:
            return math.nan
        mean = self.x / self.n
        return mean + _unscale(self.large_x / self.n) if self.large_x else mean

    def make_statistics(self) -> tuple[float, float]:
        """Return the mean and the population standard deviation; NaN if no number was added."""
        mean = self.compute_mean()
        if not self.n:
            return mean, math.nan
        if self.large_x2:
            scaled_mean = (self.x * _SCALE + self.large_x) / self.n
            variance = (self.x2 * _SCALE * _SCALE + self.large_x2) / self.n - scaled_mean * scaled_mean
            return mean, _unscale(math.sqrt(max(variance, 0.0)))
        variance = self.x2 / self.n - mean * mean
        # Rounding can make the variance negative. In this order of arguments, max() returns NaN for NaN.
        return mean, math.sqrt(max(variance, 0.0))

    def state_dict(self) -> SummaryState:
        """Return the state: plain numbers only."""
        return {"n": self.n, "x": self.x, "x2": self.x2, "large_x": self.large_x, "large_x2": self.large_x2}

    def load_state_dict(self, state: SummaryState) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        self.n, self.x, self.x2 = state["n"], state["x"], state["x2"]
        self.large_x, self.large_x2 = state["large_x"], state["large_x2"]


def _unscale(number: float) -> float:
    limit = sys.float_info.max
    return max(-limit, min(limit, number / _SCALE))  # A mean of floats is a float, in spite of rounding.


class DictSummary:
    """Mean and standard deviation of each key in a sequence of dictionaries.

    Tensors on another device are summed on their device, with one operation for all keys, and copied to the host
    together when a result is computed. Functions are called when a result is computed.

    Example:
        >>> import pte_tracking as pte
        >>> summary = pte.DictSummary()
        >>> summary.add({"loss": 1.0, "accuracy": (0.5, 10)})
        >>> summary.add({"loss": 2.0, "accuracy": (0.8, 20)})
        >>> summary.compute_mean()
        {'loss': 1.5, 'accuracy': 0.7}
    """

    def __init__(self) -> None:
        self._summaries: dict[str, Summary] = {}
        self._device_sums: dict[tuple[torch.device, bool, tuple[str, ...]], _DeviceSums] = {}
        self._deferred: list[tuple[str, DeferredValue]] = []

    @property
    def is_empty(self) -> bool:
        """Whether no value was added."""
        return not self._summaries

    def __contains__(self, key: object) -> bool:
        return key in self._summaries

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a dictionary of numbers.

        Args:
            values: By key, a real number, a tensor of one element, a function without arguments that returns one, or a
                tuple of one of these and its weight.

        Raises:
            TypeError: If a value is not a real number.
            ValueError: If a value has several elements, or a weight is negative or not finite.
        """
        summaries = self._summaries
        on_devices: dict[str, Tensor] = {}
        for key, value in values.items():
            summary = summaries.get(key)
            if summary is None:
                summary = summaries[key] = Summary()
            if type(value) is float and _MINUS_LARGE < value < _LARGE:
                # Inlined Summary.add_number(): this code runs for each value of each report in each iteration.
                summary.n += 1
                summary.x += value
                summary.x2 += value * value
            else:
                self._add_other(key, value, summary, on_devices)
        if on_devices:
            self._add_on_devices(on_devices)

    def _add_other(self, key: str, value: Any, summary: Summary, on_devices: dict[str, Tensor]) -> None:
        """Add a value that is not a float below the limit, or collect it in ``on_devices``."""
        if isinstance(value, tuple):
            value = to_value(key, value)
        weight = weight_of(value)
        if isinstance(value, Tensor) and not value.is_cpu:
            if weight:
                on_devices[key] = to_device_scalar(key, value, copy=False)
            return
        if type(value) is not float:
            value = to_value(key, value) if not isinstance(value, DeferredValue) else value
            if isinstance(value, DeferredValue):
                self._deferred.append((key, value))
                return
        summary.add_number(value, weight)

    def compute_mean(self) -> dict[str, float]:
        """Return the weighted mean of each key."""
        self._fetch()
        return {key: summary.compute_mean() for key, summary in self._summaries.items()}

    def make_statistics(self) -> dict[str, float]:
        """Return the mean of each key, and its population standard deviation as ``key.std``."""
        self._fetch()
        statistics = {}
        for key, summary in self._summaries.items():
            statistics[key], statistics[key + ".std"] = summary.make_statistics()
        return statistics

    def state_dict(self) -> dict[str, SummaryState]:
        """Return the state of the summary of each key."""
        self._fetch()
        return {key: summary.state_dict() for key, summary in self._summaries.items()}

    def load_state_dict(self, state: Mapping[str, SummaryState]) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        self._device_sums.clear()
        self._deferred.clear()
        self._summaries = {}
        for key, saved in state.items():
            summary = self._summaries[key] = Summary()
            summary.load_state_dict(saved)

    def _add_on_devices(self, values: dict[str, Tensor]) -> None:
        groups: dict[tuple[torch.device, bool], dict[str, Tensor]] = {}
        for key, value in values.items():
            groups.setdefault((value.device, has_narrow_source(value)), {})[key] = value
        for (device, is_narrow), group in groups.items():
            sums = self._device_sums.get((device, is_narrow, tuple(group)))
            if sums is None:
                sums = self._device_sums[device, is_narrow, tuple(group)] = _DeviceSums(
                    len(group), next(iter(group.values())), is_narrow
                )
            sums.add(list(group.values()))

    def _fetch(self) -> None:
        """Add the results of functions and the sums on other devices to the summaries, with one copy per device."""
        deferred, self._deferred = self._deferred, []
        for key, value in deferred:
            self._summaries[key].add_number(value(), value.weight)
        for device in {device for device, _, _ in self._device_sums}:
            groups = [
                (keys, sums) for (group_device, _, keys), sums in self._device_sums.items() if group_device == device
            ]
            numbers = iter(torch.cat([total for _, sums in groups for total in sums.totals.values()]).cpu().tolist())
            for keys, sums in groups:
                summaries = [self._summaries[key] for key in keys]
                for summary, weight in zip(summaries, sums.weights, strict=True):
                    summary.n += weight
                for name in sums.totals:
                    for summary in summaries:
                        setattr(summary, name, getattr(summary, name) + next(numbers))
        self._device_sums.clear()


class _DeviceSums:
    """Sums of a fixed list of keys, kept on a device.

    Args:
        keys: Number of keys.
        like: Tensor whose device and type the sums get.
        is_narrow: Whether all values come from types whose sums cannot overflow.

    Attributes:
        weights: Sum of the weights of each key. Kept on the host, so that reading it does not wait for the device.
        totals: The sums of each key, by the name of the attribute of :class:`Summary`.
    """

    def __init__(self, keys: int, like: Tensor, is_narrow: bool) -> None:
        self.weights: list[float] = [0] * keys
        names = ("x", "x2") if is_narrow else ("x", "x2", "large_x", "large_x2")
        self.totals = {name: like.new_zeros(keys) for name in names}
        self._is_narrow = is_narrow

    def add(self, values: list[Tensor]) -> None:
        weights = [weight_of(value) for value in values]
        self.weights = [total + weight for total, weight in zip(self.weights, weights, strict=True)]
        stacked = torch.stack(values)
        if self._is_narrow:
            self._add_to("x", stacked, weights)
            return
        is_large = (stacked.abs() >= _LARGE) & (stacked.abs() < math.inf)
        self._add_to("x", stacked.masked_fill(is_large, 0), weights)
        self._add_to("large_x", (stacked * _SCALE).masked_fill(is_large.logical_not(), 0), weights)

    def _add_to(self, name: str, values: Tensor, weights: list[float]) -> None:
        is_weighted = any(weight != 1 for weight in weights)
        # A multiplication with numbers of the host does not wait for the device, in contrast to a copy of a list.
        pairs = zip(values.unbind(), weights, strict=True)
        weighted = torch.stack([value * weight for value, weight in pairs]) if is_weighted else values
        self.totals[name].add_(weighted)
        self.totals[f"{name}2"].addcmul_(weighted, values)
