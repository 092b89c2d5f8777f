"""Pauses between attempts while a backend is unavailable."""

from __future__ import annotations

import pytest

from pte_tracking._delivery import backoff


@pytest.fixture(autouse=True)
def longest_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)


def test_backoff_doubles_up_to_the_limit() -> None:
    pauses = backoff.Backoff()
    assert [pauses.next_pause_seconds() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_backoff_after_reset_starts_again() -> None:
    pauses = backoff.Backoff()
    pauses.next_pause_seconds()
    pauses.reset()
    assert pauses.next_pause_seconds() == 0.5
