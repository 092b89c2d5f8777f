"""Sinks that act while no events arrive."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pte_tracking as pte
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.delivery_loop import deliver
from tests.probe.fixtures import wait_until

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


class Polls:
    """Calls of poll(), which fail on request.

    Attributes:
        statuses: Statuses with which it was called.
        is_failing: Whether it fails.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statuses: list[str] = []
        self.is_failing = False
        module = importlib.import_module("pte_probe")
        monkeypatch.setattr(module.ProbeSink, "poll_seconds", 0.0)
        monkeypatch.setattr(module.ProbeConnection, "poll", lambda connection, status: self(status), raising=False)

    def __call__(self, status: str) -> bool:
        self.statuses.append(status)
        if self.is_failing:
            raise OSError("the service is down")
        return len(self.statuses) < 10  # again at once


def test_sink_is_polled_without_events_and_at_end(
    tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    polls = Polls(monkeypatch)
    run = pte.Run(tmp_path, sinks=[probe.sink()], close_timeout=0)
    run.log_metrics({"a": 1.0}, 1)
    thread = threading.Thread(target=deliver, args=(tmp_path,))
    thread.start()
    wait_until(lambda: len(polls.statuses) > 12)
    assert set(polls.statuses) == {"RUNNING"}
    polls.is_failing = True
    wait_until(lambda: Cursor.load(tmp_path, "probe").error)
    run.log_metrics({"a": 2.0}, 2)
    wait_until(lambda: probe.points() == [("a", 1, 1.0), ("a", 2, 2.0)])
    assert Cursor.load(tmp_path, "probe").error == "OSError: the service is down"
    run.close()
    assert "FINISHED" not in probe.statuses
    polls.is_failing = False
    thread.join(60)
    assert not thread.is_alive()
    assert polls.statuses[-1] == "FINISHED"
    assert probe.statuses[-1] == "FINISHED"
    assert Cursor.load(tmp_path, "probe").error is None
