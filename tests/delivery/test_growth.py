"""Counted work and memory do not grow with the length of a run."""

from __future__ import annotations

import os
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pte_backends.json import JsonSink
from pte_tracking._delivery import backlog
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.run import Run
from pte_tracking._store import event_encoding
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking.testing import RecordedRun

SHORT, LONG = 8_000, 40_000
REWOUND_ROWS = 100  # rows that a rewind supersedes


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of decoded journal lines, and of bytes of the journal read backwards.

    The JSON log is not counted: a rewind copies it, so that a loss of power keeps its rows.
    """
    counted: Counter[str] = Counter()
    decode, pread = event_encoding.decode, os.pread

    def counting_decode(line: bytes) -> Any:
        counted["decoded"] += 1
        return decode(line)

    def counting_pread(fd: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{fd}").readlink().name == JOURNAL:
            counted["read"] += size
        return pread(fd, size, offset)

    monkeypatch.setattr(event_encoding, "decode", counting_decode)
    monkeypatch.setattr(os, "pread", counting_pread)
    return counted


def trained(directory: Path, rows: int) -> RunPosition:
    """Log a number of rows. Return a position shortly before the end."""
    run = Run(directory)
    for step in range(rows):
        if step == rows - REWOUND_ROWS:
            position = run.position(step)
        run.log_metrics({"a": 1.0}, step)
    run.close()
    return position


def resume_run(directory: Path, position: RunPosition) -> None:
    with Run(directory, resume=True) as run:
        run.log_metrics({"a": 1.0}, 1)


def rewind_run(directory: Path, position: RunPosition) -> None:
    run = Run(directory)
    run.open(position)
    run.rewind()
    run.close()


def read_backlog(directory: Path, position: RunPosition) -> None:
    backlog.backlog(directory, Manifest.load(directory))


@pytest.mark.parametrize("operation", [resume_run, rewind_run, read_backlog])
def test_reopen_cost_is_independent_of_run_length(
    tmp_path: Path, work: Counter[str], operation: Callable[[Path, RunPosition], None]
) -> None:
    costs = []
    for rows in (SHORT, LONG):
        directory = tmp_path / str(rows)
        position = trained(directory, rows)
        work.clear()
        operation(directory, position)
        costs.append(dict(work))
    short, long = costs
    assert long["decoded"] == short["decoded"] <= 3 * REWOUND_ROWS
    assert long["read"] < 1 << 20 < (tmp_path / str(LONG) / JOURNAL).stat().st_size


def test_delivery_memory_is_independent_of_backlog_length(tmp_path: Path) -> None:
    peaks = []
    for rows in (SHORT, LONG):
        recorded = RecordedRun(tmp_path / f"run of {rows}", JsonSink())
        for step in range(rows):
            recorded.log(step, {"a": 1.0})
        consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
        consumer.deliver_next()
        tracemalloc.start()
        while consumer.deliver_next():
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        recorded.journal.close()
    assert peaks[1] < peaks[0] + 100_000
