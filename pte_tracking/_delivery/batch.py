"""Batches of events for a sink."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from pte_tracking._store import journal_reader
from pte_tracking._store.events import AnyEvent, Metrics
from pte_tracking.sinks import Limits


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive events of the journal that are delivered together.

    Attributes:
        events: The events, oldest first. Empty if the journal contains no complete line in the range.
        end: Journal position after the last event, in bytes.
        is_full: Whether a limit of the sink ended the batch, so more events may follow.
        is_metrics_only: Whether all events are metrics.
    """

    events: tuple[AnyEvent, ...]
    end: int
    is_full: bool = False
    is_metrics_only: bool = False


@dataclasses.dataclass(frozen=True)
class Delivered:
    """A delivered batch.

    Attributes:
        batch: The batch.
        seconds: Time that the sink took to write the batch.
    """

    batch: Batch
    seconds: float


def read_batch(path: Path, start: int, end: int, limits: Limits) -> Batch:
    """Read the next batch from a journal.

    Args:
        path: The journal.
        start: Position of the first event, in bytes.
        end: Position at which the batch ends at the latest, in bytes.
        limits: Limits of the sink. The first event is always included, even if it exceeds ``limits.batch_values``.

    Returns:
        The batch.
    """
    events: list[AnyEvent] = []
    values = 0
    for event, event_end in journal_reader.read(path, start, end):
        values += _value_count(event)
        if events and values > limits.batch_values:
            return _batch(events, start, is_full=True)
        events.append(event)
        start = event_end
        if len(events) >= limits.batch_events:
            return _batch(events, start, is_full=True)
    return _batch(events, start, is_full=False)


def split_events(events: Iterable[AnyEvent], max_values: int) -> Iterator[list[AnyEvent]]:
    """Split events into lists of at most ``max_values`` metric values.

    Args:
        events: Events, none of which has more than ``max_values`` metric values.
        max_values: Maximum number of metric values per list.

    Yields:
        Non-empty lists of events, in order.
    """
    part: list[AnyEvent] = []
    values = 0
    for event in events:
        count = _value_count(event)
        if part and values + count > max_values:
            yield part
            part, values = [], 0
        part.append(event)
        values += count
    if part:
        yield part


def _batch(events: list[AnyEvent], end: int, is_full: bool) -> Batch:
    is_metrics_only = all(isinstance(event, Metrics) for event in events)
    return Batch(tuple(events), end, is_full, is_metrics_only)


def _value_count(event: AnyEvent) -> int:
    return len(event.values) if isinstance(event, Metrics) else 0
