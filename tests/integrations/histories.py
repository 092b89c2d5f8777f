"""Content of the journal that an adapter wrote."""

from __future__ import annotations

import collections
import subprocess
import sys
from pathlib import Path

from pte_tracking.sinks import JOURNAL, AnyEvent, Metrics, RunEnded, find_events, read_effective


def history(directory: Path) -> list[AnyEvent]:
    return [event for event, _ in read_effective(directory / JOURNAL)]


def points(directory: Path, key: str) -> list[int]:
    """Return the steps of the data points of a key."""
    rows = [event for event in history(directory) if isinstance(event, Metrics)]
    return [row.step for row in rows if key in row.values]


def repeated_points(directory: Path) -> list[tuple[str, int]]:
    """Return the keys and steps with several data points."""
    rows = [event for event in history(directory) if isinstance(event, Metrics)]
    counts = collections.Counter((key, row.step) for row in rows for key in row.values)
    return [point for point, count in counts.items() if count > 1]


def statuses(directory: Path) -> list[str]:
    return [end.status for end, _ in find_events(directory / JOURNAL, RunEnded)]


def run_script(script: Path, *arguments: str, folder: Path, status: int = 0) -> None:
    command = [sys.executable, "-W", "ignore", str(script), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr


def tensorboard_steps(directory: Path, key: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return [point.step for point in accumulator.Scalars(key)]
