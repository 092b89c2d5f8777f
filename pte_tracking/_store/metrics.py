"""Rows and metric summaries of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pte_tracking._store.events import Metrics, Number, StoredNumber
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.samples import is_sample


class MetricSummary(msgspec.Struct):
    """Last, lowest, and highest value of a metric.

    Attributes:
        last: Last value.
        last_step: Step of the last value.
        lowest: Lowest finite value. None if no value is finite.
        lowest_step: First step with the lowest value.
        highest: Highest finite value. None if no value is finite.
        highest_step: First step with the highest value.
    """

    last: Number
    last_step: int
    lowest: Number | None = None
    lowest_step: int | None = None
    highest: Number | None = None
    highest_step: int | None = None

    def update(self, value: Number, step: int) -> None:
        """Add a value."""
        self.last, self.last_step = value, step
        if not math.isfinite(value):
            return
        if self.lowest is None or value < self.lowest:
            self.lowest, self.lowest_step = value, step
        if self.highest is None or value > self.highest:
            self.highest, self.highest_step = value, step


class FirstValues:
    """Selection of the first value of a key and step, if several LogReports write it.

    Attributes:
        step: Current step. None at the start of the history.
        keys: Keys that a LogReport has written at this step, with its log.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.keys: dict[str, str | None] = {}

    def select(self, event: Metrics) -> dict[str, StoredNumber]:
        """Return the data points of the next event without those that a LogReport has written before."""
        points = event.points
        if event.explicit:
            return points
        if event.step != self.step:
            self.step, self.keys = event.step, {}
        repeated = self.keys.keys() & points.keys()
        self.keys.update(dict.fromkeys(points.keys() - repeated, event.log))
        return {key: value for key, value in points.items() if key not in repeated} if repeated else points


class RunMetrics(NamedTuple):
    """All metrics of a run.

    Attributes:
        step: Highest step, without those of imported system metrics; None if there is none.
        summaries: Last, lowest, and highest value of each metric.
    """

    step: int | None
    summaries: dict[str, MetricSummary]


def summarize_metrics(directory: Path) -> RunMetrics:
    """Read all metrics of a run once.

    Args:
        directory: Run directory.
    """
    step: int | None = None
    summaries: dict[str, MetricSummary] = {}
    for event, points in read_points(directory):
        if not is_sample(event):
            step = event.step if step is None else max(step, event.step)
        for key, value in points.items():
            if key not in summaries:
                summaries[key] = MetricSummary(value, event.step)  # type: ignore[arg-type]  # decoded as numbers
            summaries[key].update(value, event.step)  # type: ignore[arg-type]
    return RunMetrics(step, summaries)


def read_metrics(directory: Path, end: int | None = None) -> Iterator[Metrics]:
    """Iterate over the effective metrics: the rows of all logs, and data points that belong to no row.

    Args:
        directory: Run directory.
        end: Position in the journal at which to stop. None means the end of the file.
    """
    return (event for event, _ in read_effective(directory / JOURNAL, end) if isinstance(event, Metrics))


def read_points(directory: Path) -> Iterator[tuple[Metrics, dict[str, StoredNumber]]]:
    """Iterate over the effective metrics, with the data points that backends show.

    Rows that no sink receives, such as those of the table of a PrintReport, would add false values to the curves. Only
    metrics that no other row has are read from them.

    Args:
        directory: Run directory.

    Yields:
        Each event with its data points, which may be none. At the end, the events again that have metrics which no sink
        receives, with these.
    """
    first_values = FirstValues()
    keys: set[str] = set()
    unsent_keys: set[str] = set()
    for event in read_metrics(directory):
        points: dict[str, StoredNumber] = {}
        if _is_unsent(event):
            unsent_keys.update(event.points)
        else:
            keys.update(event.points)
            points = first_values.select(event)
        yield event, points
    if not (only_unsent := unsent_keys - keys):
        return
    # Read again, because a run may have more rows than fit the memory.
    first_values = FirstValues()
    for event in filter(_is_unsent, read_metrics(directory)):
        if points := {key: value for key, value in first_values.select(event).items() if key in only_unsent}:
            yield event, points


def _is_unsent(event: Metrics) -> bool:
    return event.sinks == []


def read_rows(directory: Path, end: int | None = None) -> Iterator[Metrics]:
    """Iterate over the effective rows of all logs; see :func:`read_metrics`."""
    return (event for event in read_metrics(directory, end) if event.log is not None)
