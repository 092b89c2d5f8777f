"""Read the offline sessions of ClearML with the classes of the client library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clearml.backend_api.services import events as api
from clearml.backend_api.services import tasks

from pte_tracking.testing import Points

_EVENTS = {
    "training_stats_scalar": api.MetricsScalarEvent,
    "training_debug_image": api.MetricsImageEvent,
    "plot": api.MetricsPlotEvent,
}


def find_session(run_directory: Path) -> Path:
    (folder,) = (path for path in run_directory.glob("clearml/offline/*") if path.is_dir())
    return folder


def read_task(run_directory: Path) -> Any:
    stored = json.loads((find_session(run_directory) / "task.json").read_text())
    task = tasks.Task(**{key: value for key, value in stored.items() if not key.startswith(("offline_", "project_"))})
    task.project_name = stored["project_name"]
    return task


def read_reports(run_directory: Path) -> Iterator[Any]:
    for line in (find_session(run_directory) / "metrics.jsonl").read_text().splitlines():
        for report in json.loads(line):
            kind, _ = report.pop("type"), report.pop("method")
            yield _EVENTS[kind](**report)


def read_key(report: Any) -> str:
    return report.metric if report.metric == report.variant else f"{report.metric}/{report.variant}"


def read_run_points(run_directory: Path) -> Points:
    points: Points = {}
    for report in read_reports(run_directory):
        if isinstance(report, api.MetricsScalarEvent):
            points.setdefault(read_key(report), []).append((report.iter, report.value))
    return points
