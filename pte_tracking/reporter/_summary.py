"""Mean and standard deviation of reported values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from pte_tracking._store.values import to_number
from pte_tracking.reporter._values import to_device_scalar


class SummaryState(TypedDict):
    """State of a :class:`Summary`.

    Attributes:
        n: Sum of the weights.
        x: Weighted sum of the values.
        x2: Weighted sum of the squared values.
    """

    n: float
    x: float
    x2: float


class Summary:
    """Mean and standard deviation of a sequence of numbers, in double precision.

    Attributes:
        n: Sum of the weights.
        x: Weighted sum of the numbers.
        x2: Weighted sum of the squared numbers.

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

    __slots__ = ("n", "x", "x2")

    def __init__(self) -> None:
        self.n: float = 0
        self.x = 0.0
        self.x2 = 0.0

    def add(self, value: Any, weight: float = 1) -> None:
        """Add a number.

        Args:
            value: A real number or a tensor of one element, which is read immediately.
            weight: Weight of the number in the mean. Defaults to 1.

        Raises:
            TypeError: If the value is not a real number.
            ValueError: If the value has several elements.
        """
        number = to_number("value", value)
        self.n += weight
        self.x += weight * number
        self.x2 += weight * number * number

    def compute_mean(self) -> float:
        """Return the weighted mean; NaN if no number was added."""
        return self.x / self.n if self.n else math.nan

    def make_statistics(self) -> tuple[float, float]:
        """Return the mean and the population standard deviation; NaN if no number was added."""
        mean = self.compute_mean()
        variance = self.x2 / self.n - mean * mean if self.n else math.nan
        # Rounding can make the variance negative. In this order of arguments, max() returns NaN for NaN.
        return mean, math.sqrt(max(variance, 0.0))

    def state_dict(self) -> SummaryState:
        """Return the state: plain numbers only."""
        return {"n": self.n, "x": self.x, "x2": self.x2}

    def load_state_dict(self, state: SummaryState) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        self.n, self.x, self.x2 = state["n"], state["x"], state["x2"]


class DictSummary:
    """Mean and standard deviation of each key in a sequence of dictionaries.

    Tensors on another device are summed on their device, with one operation for all keys, and copied to the host
    together when a result is computed.

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
        self._device_sums: dict[tuple[torch.device, tuple[str, ...]], _DeviceSums] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no value was added."""
        return not self._summaries

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a dictionary of numbers.

        Args:
            values: By key, a real number, a tensor of one element, or a tuple of a number and its weight.

        Raises:
            TypeError: If a value is not a real number.
            ValueError: If a value has several elements.
        """
        summaries = self._summaries
        on_devices: dict[str, tuple[Tensor, float]] = {}
        for key, value in values.items():
            weight: float = 1
            if type(value) is tuple:
                value, weight = value[0], to_number(f"{key} (its weight)", value[1])
            summary = summaries.get(key)
            if summary is None:
                summary = summaries[key] = Summary()
            if type(value) is not float:
                if isinstance(value, Tensor) and not value.is_cpu:
                    on_devices[key] = to_device_scalar(key, value, copy=False), weight
                    continue
                value = to_number(key, value)
            # Inlined Summary.add(): this code runs for each value of each report in each iteration.
            weighted = weight * value
            summary.n += weight
            summary.x += weighted
            summary.x2 += weighted * value
        if on_devices:
            self._add_on_devices(on_devices)

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
        self._summaries = {}
        for key, saved in state.items():
            summary = self._summaries[key] = Summary()
            summary.load_state_dict(saved)

    def _add_on_devices(self, values: dict[str, tuple[Tensor, float]]) -> None:
        for device in {value.device for value, _ in values.values()}:
            on_device = {key: pair for key, pair in values.items() if pair[0].device == device}
            group = (device, tuple(on_device))
            if group not in self._device_sums:
                self._device_sums[group] = _DeviceSums(len(on_device), next(iter(on_device.values()))[0])
            self._device_sums[group].add(list(on_device.values()))

    def _fetch(self) -> None:
        """Add the sums on other devices to the summaries, with one copy per device."""
        for device in {device for device, _ in self._device_sums}:
            groups = [
                (keys, sums) for (group_device, keys), sums in self._device_sums.items() if group_device == device
            ]
            numbers = iter(torch.cat([total for _, sums in groups for total in (sums.x, sums.x2)]).cpu().tolist())
            for keys, sums in groups:
                summaries = [self._summaries[key] for key in keys]
                for summary, weight in zip(summaries, sums.weights, strict=True):
                    summary.n += weight
                for summary in summaries:
                    summary.x += next(numbers)
                for summary in summaries:
                    summary.x2 += next(numbers)
        self._device_sums.clear()


class _DeviceSums:
    """Sums of a fixed list of keys, kept on a device.

    Args:
        keys: Number of keys.
        like: Tensor whose device and type the sums get.

    Attributes:
        weights: Sum of the weights of each key. Kept on the host, so that reading it does not wait for the device.
        x: Weighted sum of each key.
        x2: Weighted sum of the squares of each key.
    """

    def __init__(self, keys: int, like: Tensor) -> None:
        self.weights: list[float] = [0] * keys
        self.x = like.new_zeros(keys)
        self.x2 = like.new_zeros(keys)

    def add(self, pairs: list[tuple[Tensor, float]]) -> None:
        self.weights = [total + weight for total, (_, weight) in zip(self.weights, pairs, strict=True)]
        values = torch.stack([value for value, _ in pairs])
        is_unweighted = all(weight == 1 for _, weight in pairs)
        weighted = values if is_unweighted else torch.stack([value * weight for value, weight in pairs])
        self.x.add_(weighted)
        self.x2.addcmul_(weighted, values)
