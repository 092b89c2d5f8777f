"""Rows of an imported run, in which each data point keeps the time of the source."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from pte_tracking._store.events import Event, Metrics, StoredNumber
from pte_tracking._store.samples import is_sample
from pte_tracking._store.values import check_step, to_numbers, to_progress

LOG = "log"
_EPOCH = "epoch"

_E = TypeVar("_E", bound=Event)


def join_rows(events: Iterable[_E]) -> Iterator[_E | Metrics]:
    """Join consecutive metrics of the same step to rows, unless a key would be repeated.

    A value whose time differs from that of its row is a separate data point, which precedes the row. System metrics
    belong to no row, because their step is the number of a sample.

    Args:
        events: Events in the order of the source.

    Yields:
        Rows, data points that belong to no row, and other events, without sequence numbers.

    Raises:
        TypeError: If a step is not an integer, or a value is not a number.
        ValueError: If a key is empty, or a step has more than 64 bits.
    """
    members: list[Metrics] = []
    keys: set[str] = set()
    for event in events:
        if not isinstance(event, Metrics):
            yield from _build_row(members)
            members, keys = [], set()
            yield event
            continue
        if is_sample(event):
            step = check_step(event.step)
            yield Metrics(0, event.time, step, dict(to_numbers(event.values)), log=None, explicit=True)
            continue
        if members and (event.step != members[0].step or not keys.isdisjoint(event.values)):
            yield from _build_row(members)
            members, keys = [], set()
        members.append(event)
        keys.update(event.values)
    yield from _build_row(members)


def _build_row(members: Sequence[Metrics]) -> Iterator[Metrics]:
    if not members:
        return
    values: dict[str, StoredNumber] = {}
    measured: list[str] = []
    step, row_time = check_step(members[0].step), members[-1].time
    epoch = elapsed_time = None
    for member in members:
        numbers = to_numbers(member.values)
        if math.isfinite(numbers.get(_EPOCH, math.nan)):  # a metric in the formats without a field for it
            epoch = numbers.pop(_EPOCH)
        elif member.epoch is not None:
            epoch = to_progress(_EPOCH, member.epoch)
        if member.elapsed_time is not None:
            elapsed_time = to_progress("elapsed_time", member.elapsed_time)
        values |= numbers
        if member.time != row_time and numbers:
            measured += numbers
            yield Metrics(0, member.time, step, dict(numbers), log=None, explicit=True)
    if values or epoch is not None:
        yield Metrics(0, row_time, step, values, epoch, elapsed_time, LOG, None, measured or None, True)
