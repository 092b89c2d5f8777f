"""Threads of the delivery of one run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pte_tracking as pte
from pte_tracking._delivery.control import request_retry
from pte_tracking._delivery.cursor import Cursor, cursor_path
from pte_tracking._delivery.delivery_loop import deliver
from tests.probe.fixtures import wait_until

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


def test_retry_request_after_delivered_end_starts_no_delivery_without_cursor(
    tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    with pte.Run(tmp_path, sinks=[probe.sink()], close_timeout=0) as run:
        run.log_metrics({"a": 1.0}, 1)

    def delete_cursor_at_end(_: float) -> bool:
        """Simulate a program that deletes the run directory as soon as the run is delivered."""
        if Cursor.load(tmp_path, "probe").end_status == "FINISHED":
            wait_until(lambda: all(thread.name != "deliver-probe" for thread in threading.enumerate()))
            cursor_path(tmp_path, "probe").unlink()
            request_retry(tmp_path)
        return False

    deliver(tmp_path, delete_cursor_at_end)
    assert probe.statuses == ["FINISHED"]
    assert len(probe.notes("open")) == 1
    assert not cursor_path(tmp_path, "probe").exists()
