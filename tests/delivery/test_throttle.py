"""Pauses of the delivery while cores or servers are busy."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pte_tracking._delivery import delivery_loop, throttle
from pte_tracking._delivery.batch import Batch, Delivered
from pte_tracking._platform import processes

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replacement of ``/proc/stat``: user, nice, system, idle and waiting ticks."""
    path = tmp_path / "stat"
    path.write_text("cpu  0 0 0 0 0 0\ncpu0 0\n")
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    monkeypatch.setattr(throttle, "_SAMPLE_SECONDS", 0.0)
    return path


@pytest.mark.parametrize(("cores_idle", "should_pause"), [(0.0, True), (1.0, True), (2.0, False), (64.0, False)])
def test_throttle_pauses_only_when_cores_are_busy(stat: Path, cores_idle: float, should_pause: bool) -> None:
    pauses = throttle.Throttle()
    pauses._sample_time -= 100.0  # much longer than the rest of this test takes on a busy machine
    ticks = int(100.0 * cores_idle * TICKS)
    stat.write_text(f"cpu  5 0 0 {ticks - ticks // 3} {ticks // 3} 0\n")
    assert (pauses.pause_seconds(0.1) > 1.0) == should_pause


def test_throttle_pause_is_at_most_5_seconds(stat: Path) -> None:
    pauses = throttle.Throttle()
    time.sleep(0.1)
    assert pauses.pause_seconds(1000.0) == 5.0


@pytest.mark.parametrize("content", [None, "", "intr 1\n", "cpu  a b c d e\n"])
def test_throttle_unreadable_statistics_cause_no_pause(stat: Path, content: str | None) -> None:
    stat.unlink()
    if content is not None:
        stat.write_text(content)
    assert throttle.Throttle().pause_seconds(1.0) == 0.0


@pytest.mark.parametrize(
    ("request_seconds", "is_metrics_only", "expected_seconds"),
    [(0.01, True, 0.99), (0.2, True, 3.8), (10.0, True, 60.0), (0.2, False, 0.8), (10.0, False, 0.0)],
)
def test_request_interval_grows_with_request_duration(
    request_seconds: float, is_metrics_only: bool, expected_seconds: float
) -> None:
    assert throttle.request_interval(request_seconds, is_metrics_only=is_metrics_only) == pytest.approx(
        max(expected_seconds, 0.0)
    )


@dataclasses.dataclass
class FakeConsumer:
    uses_shared_server: bool


@pytest.mark.parametrize(
    ("uses_shared_server", "is_full", "is_metrics_only", "expected_seconds"),
    [(False, False, True, 0.0), (True, True, True, 0.0), (True, False, True, 3.8), (True, False, False, 0.8)],
)
def test_request_pause_depends_on_sink_and_batch(
    uses_shared_server: bool, is_full: bool, is_metrics_only: bool, expected_seconds: float
) -> None:
    delivered = Delivered(Batch((), 0, is_full, is_metrics_only), 0.2)
    consumer: Any = FakeConsumer(uses_shared_server)
    assert delivery_loop._request_pause(consumer, delivered) == pytest.approx(expected_seconds)
