"""What the training observes: reported from anywhere, collected in one dictionary, averaged over an interval.

A value is a plain number from the moment it is reported. Only what lies on another device stays there, detached from
its graph and copied, until somebody needs the number: reading it would make the host wait for the device.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, TypeAlias, TypedDict

import torch
from torch import Tensor

from pte_tracking._store.values import check_key, to_number

#: An observed number; a tensor without dimensions where it still lies on another device.
Value: TypeAlias = int | float | Tensor
Observation: TypeAlias = dict[str, Value]


class Reporter:
    """Collects reported values in :attr:`observation`.

    Attributes:
        observation: The dictionary that gets the values.
    """

    def __init__(self) -> None:
        self.observation: Observation = {}
        # By identity, as in Chainer; the observer is kept, so that its id is not given to another object.
        self._observers: dict[int, tuple[str, object]] = {}

    def __enter__(self) -> Reporter:
        _current.stack.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.stack.pop()

    def scope(self, observation: Observation) -> ReportScope:
        """A ``with`` block in which this reporter is the current one and writes to ``observation``."""
        return ReportScope(self, observation)

    def add_observer(self, name: str, observer: object) -> None:
        """Names an observer: values that it reports are called ``name/key``."""
        self._observers[id(observer)] = (check_key(name, "name"), observer)

    def add_observers(self, prefix: str, observers: Iterable[tuple[str, object]]) -> None:
        """Names several observers: each is called ``prefix`` followed by its own name."""
        for name, observer in observers:
            self.add_observer(prefix + name, observer)

    def report(self, values: Mapping[str, Any], observer: object = None) -> None:
        """Adds values to the observation; a later value of the same key replaces an earlier one.

        Args:
            values: Numbers by key: Python's or NumPy's, or tensors of one element on any device. What is changed in
                place afterwards is not seen, and no graph is kept.
            observer: Who reports them; its name goes before the keys.

        Raises:
            TypeError: A key is no string, or a value no real number.
            ValueError: A key is empty or no valid Unicode, or a value has several elements.
            KeyError: The observer was not added.
        """
        observation = self.observation
        prefix = "" if observer is None else self._prefix(observer)
        # Paid for in every iteration: the commonest keys and values are told by one look each.
        for key, value in values.items():
            if not (type(key) is str and key and key.isascii()):
                check_key(key, "values")
            observation[prefix + key] = value if type(value) is float else _to_value(key, value)

    def _prefix(self, observer: object) -> str:
        try:
            return self._observers[id(observer)][0] + "/"
        except KeyError:
            raise KeyError(
                f"observer: {type(observer).__name__} is not known to this reporter; name it first with add_observer()"
            ) from None


class ReportScope:
    """Makes a reporter current and its observation another one, for the length of a ``with`` block."""

    def __init__(self, reporter: Reporter, observation: Observation) -> None:
        self._reporter = reporter
        self._observation = observation

    def __enter__(self) -> None:
        self.enter(self._observation)

    def enter(self, observation: Observation) -> None:
        """Enters the block with another observation: one scope serves all iterations."""
        reporter = self._reporter
        self._outer, reporter.observation = reporter.observation, observation
        _current.stack.append(reporter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.stack.pop()
        self._reporter.observation = self._outer


class _Current(threading.local):
    def __init__(self) -> None:
        self.stack: list[Reporter] = []


_current = _Current()


def get_current_reporter() -> Reporter:
    """The reporter of the innermost ``with`` block of this thread.

    Raises:
        RuntimeError: There is none.
    """
    stack = _current.stack
    if not stack:
        raise RuntimeError(
            "no reporter is current in this thread: use 'with reporter:', 'with reporter.scope({}):' "
            "or 'with manager.run_iteration():' around this"
        )
    return stack[-1]


def report(values: Mapping[str, Any], observer: object = None) -> None:
    """Reports values to the current reporter; without one, as when a model is used outside training, does nothing.

    See :meth:`Reporter.report`.
    """
    stack = _current.stack
    if stack:
        stack[-1].report(values, observer)


def report_scope(observation: Observation) -> ReportScope:
    """A ``with`` block in which the current reporter writes to ``observation``.

    Raises:
        RuntimeError: No reporter is current.
    """
    return get_current_reporter().scope(observation)


_SINGLE_PRECISION = {"mps", "xpu"}  # Metal, and Intel's small ones, have no double


def _to_value(key: str, value: Any) -> Value:
    if not isinstance(value, Tensor):
        return to_number(key, value)
    if value.is_cpu:
        try:
            number = value.item()
        except RuntimeError:  # several elements: to_number() says which value it is
            return to_number(key, value)
        return number if type(number) is float else to_number(key, number)
    return _to_device_scalar(key, value, copy=True)


def _to_device_scalar(key: str, value: Tensor, *, copy: bool) -> Tensor:
    if value.numel() != 1 or value.is_complex() or value.is_meta:
        to_number(key, value)  # raises what it would for a tensor of the host
    precision = torch.float32 if value.device.type in _SINGLE_PRECISION else torch.float64
    if not copy and value.dtype is precision and not value.shape and not value.requires_grad:
        return value  # as report() left it
    return value.detach().to(precision, copy=copy).reshape(())


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
                    on_devices[key] = _to_device_scalar(key, value, copy=False), weight
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
