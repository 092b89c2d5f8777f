"""The points of a run, read from its journal: its rows, and of each key the last and the best value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pte_tracking._store.events import Metrics, Number
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import JOURNAL


class MetricSummary(msgspec.Struct):
    """What is told of one key.

    Attributes:
        last: The last value.
        last_step: Its step.
        lowest: The lowest value; None if none was finite.
        lowest_step: Its first step.
        highest: The highest value; None if none was finite.
        highest_step: Its first step.
    """

    last: Number
    last_step: int
    lowest: Number | None = None
    lowest_step: int | None = None
    highest: Number | None = None
    highest_step: int | None = None

    def update(self, value: Number, step: int) -> None:
        """One more value."""
        self.last, self.last_step = value, step
        if not math.isfinite(value):
            return
        if self.lowest is None or value < self.lowest:
            self.lowest, self.lowest_step = value, step
        if self.highest is None or value > self.highest:
            self.highest, self.highest_step = value, step


def summarize_metrics(directory: Path) -> dict[str, MetricSummary]:
    """Last, lowest and highest value of every key of a run."""
    summaries: dict[str, MetricSummary] = {}
    for row in read_rows(directory):
        for key, value in row.values.items():
            if key not in summaries:
                summaries[key] = MetricSummary(value, row.step)  # type: ignore[arg-type]  # decoded: no texts are left
            summaries[key].update(value, row.step)  # type: ignore[arg-type]
    return summaries


def read_rows(directory: Path, end: int | None = None) -> Iterator[Metrics]:
    """The rows of a run that hold, of all logs, as they stand in the journal up to ``end`` (a position)."""
    return (event for event, _ in read_effective(directory / JOURNAL, end) if isinstance(event, Metrics))


def primary_metric(keys: Iterable[str]) -> str | None:
    """The key that most tells how good a run is: a loss, or else an accuracy; of validation, if it may be."""
    lower = {key: key.lower() for key in keys}
    for word in ("loss", "accuracy"):
        for part in ("val", "test", ""):
            for key, name in lower.items():
                if word in name and part in name:
                    return key
    return next(iter(lower), None)


def is_lower_better(key: str) -> bool:
    """What is usual for a key of that name."""
    return not any(word in key.lower() for word in ("accuracy", "acc", "f1", "auc", "score", "precision", "recall"))
