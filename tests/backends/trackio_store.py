"""Databases of Trackio in a temporary directory, read with Trackio's own reader."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from trackio import Api
from trackio.sqlite_storage import SQLiteStorage

from pte_backends.trackio import TrackioSink
from pte_tracking._store.manifest import Manifest
from pte_tracking.testing import Points

_STRUCTURE = ("timestamp", "step")


def new_sink() -> TrackioSink:
    """Return a sink with an empty project."""
    return TrackioSink(f"project-{uuid.uuid4().hex}").resolve()


def read_rows(sink: TrackioSink, directory: Path) -> list[dict[str, Any]]:
    """Return the rows of a run, oldest first."""
    rows: list[dict[str, Any]] = SQLiteStorage.get_logs(sink.project, run_id=Manifest.load(directory).id)
    return rows


def read_points(sink: TrackioSink, directory: Path) -> Points:
    """Return the numbers of a run by key."""
    points: Points = {}
    for row in sorted(read_rows(sink, directory), key=lambda row: row["step"]):
        for key, value in row.items():
            if key not in _STRUCTURE and isinstance(value, int | float):
                points.setdefault(key, []).append((row["step"], value))
    return points


def read_config(sink: TrackioSink, directory: Path) -> dict[str, Any]:
    """Return the configuration of a run."""
    run_id = Manifest.load(directory).id
    (run,) = (run for run in Api().runs(sink.project) if run.id == run_id)
    config: dict[str, Any] = run.config
    return config
