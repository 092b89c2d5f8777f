"""Measurement of the time that a training waits for its data, and of the amount of data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pte_tracking._data.loader import ResumableLoader

_Batch = TypeVar("_Batch")
#: Function of a batch that returns a number, such as that of its tokens. None if the number is unknown.
Count = Callable[[Any], Any]
_END: Any = object()


class Reading(NamedTuple):
    """Measurements since the last reading.

    Attributes:
        seconds: Time since the first batch was requested.
        wait_seconds: Time until the requested batches arrived.
        amounts: Sum over the batches by name. They may be tensors whose numbers are not known yet.
    """

    seconds: float
    wait_seconds: float
    amounts: dict[str, Any]


class Meter:
    """Measurements of all loaders of a training. Without :meth:`start`, nothing is measured.

    Batches are counted in the loader that yields first, because further ones yield other parts of the same iteration.

    Attributes:
        is_active: Whether to measure the passes that begin from now on.
    """

    def __init__(self) -> None:
        self.is_active = False
        self._counts: Mapping[str, Count] = {}
        self._main: str | None = None
        self._request_time: float | None = None
        self._wait_seconds = 0.0
        self._amounts: dict[str, Any] = {}

    def start(self, counts: Mapping[str, Count]) -> None:
        """Begin to measure.

        Args:
            counts: Functions by name, each of which returns an amount for a batch.
        """
        self._counts = counts
        self.is_active = True

    def read(self) -> Reading | None:
        """Return the measurements since the last call. None if no batch was requested."""
        if self._request_time is None:
            return None
        reading = Reading(time.perf_counter() - self._request_time, self._wait_seconds, self._amounts)
        self._request_time, self._wait_seconds, self._amounts = None, 0.0, {}
        return reading

    def measure(self, batches: Iterator[_Batch], name: str) -> Iterator[_Batch]:
        """Yield the batches of a loader.

        Args:
            batches: The batches.
            name: Name of the loader.
        """
        while True:
            start = time.perf_counter()
            if self._request_time is None:
                self._request_time = start
            batch = next(batches, _END)
            self._wait_seconds += time.perf_counter() - start
            if batch is _END:
                return
            self._main = self._main or name
            if name == self._main:
                for key, count in self._counts.items():
                    if (amount := count(batch)) is not None:
                        self._amounts[key] = self._amounts.get(key, 0) + amount
            yield batch


class MeasuredLoader(ResumableLoader[_Batch]):
    """Resumable loader that a meter measures.

    Args:
        loader: The loader.
        name: Its name.
        constructed: Counters of its objects at their construction.
        meter: The meter.
    """

    def __init__(self, loader: Any, name: str, constructed: Any, meter: Meter) -> None:
        super().__init__(loader, name, constructed)
        self._meter = meter

    def __iter__(self) -> Iterator[_Batch]:
        batches = super().__iter__()
        return self._meter.measure(batches, self._name) if self._meter.is_active else batches


def batch_size(batch: Any) -> int | None:
    """Return the number of samples of a batch, which is the length of its first part that has one. None without one.

    Args:
        batch: A tensor or array, or a list, tuple, or mapping of those and of lists.
    """
    parts: Any = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else [batch]
    for part in parts:
        shape = getattr(part, "shape", None)
        if isinstance(shape, Sequence) and shape:
            return int(shape[0])
        if isinstance(part, list | tuple):
            return len(part)
    return None
