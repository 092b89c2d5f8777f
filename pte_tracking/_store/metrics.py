"""Rows and metric summaries of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pte_tracking._store.events import Metrics, Number
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
    for event in read_metrics(directory):
        if not is_sample(event):
            step = event.step if step is None else max(step, event.step)
        for key, value in event.points.items():
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


def read_rows(directory: Path, end: int | None = None) -> Iterator[Metrics]:
    """Iterate over the effective rows of all logs; see :func:`read_metrics`."""
    return (event for event in read_metrics(directory, end) if event.log is not None)
