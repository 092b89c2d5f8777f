"""ClearML sessions in offline mode, read back with the classes of the client library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clearml.backend_api.services import events as api

from pte_backends.clearml import ClearMLSink
from pte_tracking.sinks import Sink
from pte_tracking.testing import Points, SinkContract


def find_session(run_directory: Path) -> Path:
    (folder,) = (path for path in run_directory.glob("clearml/offline/*") if path.is_dir())
    return folder


def read_reports(run_directory: Path) -> Iterator[dict[str, Any]]:
    for line in (find_session(run_directory) / "metrics.jsonl").read_text().splitlines():
        yield from json.loads(line)


def read_run_points(run_directory: Path) -> Points:
    points: Points = {}
    for report in read_reports(run_directory):
        if report.pop("type") == "training_stats_scalar":
            report.pop("method")
            scalar = api.MetricsScalarEvent(**report)
            key = scalar.metric if scalar.metric == scalar.variant else f"{scalar.metric}/{scalar.variant}"
            points.setdefault(key, []).append((scalar.iter, scalar.value))
    return points


# Raised when the client library reads its configuration with pyparsing 3.3.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


class TestContract(SinkContract):
    keeps_non_finite = False
    large_run_rows = 200
    generated_runs = 3

    def make_sink(self, folder: Path) -> Sink:
        return ClearMLSink("project")

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        return read_run_points(run_directory)
