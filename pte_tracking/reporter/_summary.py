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
    """A summary's state: how many values, their sum and the sum of their squares, each by weight."""

    n: float
    x: float
    x2: float


class Summary:
    """Mean and standard deviation of a sequence of numbers, in double precision."""

    __slots__ = ("n", "x", "x2")

    def __init__(self) -> None:
        self.n: float = 0
        self.x = 0.0
        self.x2 = 0.0

    def add(self, value: Any, weight: float = 1) -> None:
        """Adds a number (a tensor's is read at once), counted ``weight`` times."""
        number = to_number("value", value)
        self.n += weight
        self.x += weight * number
        self.x2 += weight * number * number

    def compute_mean(self) -> float:
        """The mean; NaN of nothing."""
        return self.x / self.n if self.n else math.nan

    def make_statistics(self) -> tuple[float, float]:
        """The mean and the standard deviation of the whole (not of a sample)."""
        mean = self.compute_mean()
        variance = self.x2 / self.n - mean * mean if self.n else math.nan
        # Rounding can leave less than nothing; max() in this order lets NaN through.
        return mean, math.sqrt(max(variance, 0.0))

    def state_dict(self) -> SummaryState:
        return {"n": self.n, "x": self.x, "x2": self.x2}

    def load_state_dict(self, state: SummaryState) -> None:
        self.n, self.x, self.x2 = state["n"], state["x"], state["x2"]


class DictSummary:
    """Mean and standard deviation of each key of a sequence of dictionaries.

    Numbers that lie on another device are summed there, with one operation for all keys, and fetched together when a
    result is asked for.
    """

    def __init__(self) -> None:
        self._summaries: dict[str, Summary] = {}
        self._device_sums: dict[tuple[torch.device, tuple[str, ...]], _DeviceSums] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._summaries

    def add(self, values: Mapping[str, Any]) -> None:
        """Adds a dictionary of numbers; a value may be a pair of a number and its weight.

        Raises:
            TypeError: A value is no real number.
            ValueError: A value has more than one element.
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
            # Written out, not Summary.add: every value of every iteration passes here, once for each report.
            weighted = weight * value
            summary.n += weight
            summary.x += weighted
            summary.x2 += weighted * value
        if on_devices:
            self._add_on_devices(on_devices)

    def compute_mean(self) -> dict[str, float]:
        """The mean of each key."""
        self._fetch()
        return {key: summary.compute_mean() for key, summary in self._summaries.items()}

    def make_statistics(self) -> dict[str, float]:
        """The mean of each key, and its standard deviation as ``key.std``."""
        self._fetch()
        statistics = {}
        for key, summary in self._summaries.items():
            statistics[key], statistics[key + ".std"] = summary.make_statistics()
        return statistics

    def state_dict(self) -> dict[str, SummaryState]:
        self._fetch()
        return {key: summary.state_dict() for key, summary in self._summaries.items()}

    def load_state_dict(self, state: Mapping[str, SummaryState]) -> None:
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
        """Takes in what was summed on other devices: one copy from each device."""
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
    """Sums of the same keys, kept on their device.

    Attributes:
        weights: How much was added to each key; known here without asking the device.
        x: The sums, one for each key.
        x2: The sums of the squares.
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
