"""Batches: reading from the journal and splitting."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from pte_tracking._delivery.batch import read_batch, split_events
from pte_tracking._store.events import AnyEvent, Metrics, Text
from pte_tracking._store.journal import Journal
from pte_tracking.sinks import Limits

LIMITS = Limits(batch_values=10, batch_events=4)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.jsonl")
    yield journal
    journal.close()


def append_rows(journal: Journal, *value_counts: int) -> None:
    for step, count in enumerate(value_counts):
        journal.append(Metrics, step, {f"key {index}": 1.0 for index in range(count)})


@pytest.mark.parametrize(
    ("value_counts", "expected_count", "is_full"),
    [
        ((), 0, False),
        ((1,), 1, False),
        ((1, 1, 1), 3, False),
        ((1, 1, 1, 1), 4, True),
        ((1, 1, 1, 1, 1), 4, True),
        ((5, 5), 2, False),
        ((5, 5, 1), 2, True),
        ((11,), 1, False),
        ((11, 1), 1, True),
    ],
)
def test_read_batch_ends_at_limits(
    journal: Journal, tmp_path: Path, value_counts: tuple[int, ...], expected_count: int, is_full: bool
) -> None:
    append_rows(journal, *value_counts)
    path = tmp_path / "journal.jsonl"
    batch = read_batch(path, 0, path.stat().st_size, LIMITS)
    assert [event.seq for event in batch.events] == [*range(1, expected_count + 1)]
    assert batch.is_full == is_full
    rest = read_batch(path, batch.end, path.stat().st_size, Limits())
    assert [event.seq for event in rest.events] == [*range(expected_count + 1, len(value_counts) + 1)]


def test_read_batch_stops_at_end_position(journal: Journal, tmp_path: Path) -> None:
    append_rows(journal, 1)
    end = journal.position
    append_rows(journal, 1)
    batch = read_batch(tmp_path / "journal.jsonl", 0, end, LIMITS)
    assert (len(batch.events), batch.end, batch.is_full) == (1, end, False)


def test_read_batch_reports_metrics_only(journal: Journal, tmp_path: Path) -> None:
    append_rows(journal, 1, 1)
    end = journal.position
    journal.append(Text, "note", 1, "text")
    path = tmp_path / "journal.jsonl"
    assert read_batch(path, 0, end, LIMITS).is_metrics_only
    assert not read_batch(path, 0, journal.position, LIMITS).is_metrics_only


def test_batch_is_immutable(journal: Journal, tmp_path: Path) -> None:
    append_rows(journal, 1)
    batch = read_batch(tmp_path / "journal.jsonl", 0, journal.position, LIMITS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.is_full = True  # type: ignore[misc]


def test_split_events_keeps_order_and_limit() -> None:
    events: list[AnyEvent] = [
        Metrics(seq, 0.0, seq, dict.fromkeys("abcd"[:count], 1)) for seq, count in enumerate((3, 2, 4, 0, 1))
    ]
    parts = list(split_events(events, 5))
    assert [[event.seq for event in part] for part in parts] == [[0, 1], [2, 3, 4]]
    assert list(split_events([], 5)) == []
