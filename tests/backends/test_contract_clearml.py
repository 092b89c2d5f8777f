"""Contract tests of the ClearML backend, whose sessions are read with the classes of the client library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from clearml.backend_api.services import events as api

from pte_backends.clearml import ClearMLSink
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract
from tests.backends.clearml_sessions import read_key, read_reports, read_run_points, read_task

# Raised when the client library reads its configuration with pyparsing 3.3.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


class TestClearML(SinkContract):
    keeps_non_finite = False
    large_run_rows = 200
    generated_runs = 3

    def make_sink(self, folder: Path) -> Sink:
        return ClearMLSink("project")

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        return read_run_points(run_directory)

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        task, reports = read_task(run_directory), {read_key(report): report for report in read_reports(run_directory)}
        media = {key: report.url for key, report in reports.items() if isinstance(report, api.MetricsImageEvent)}
        artifacts = {file.key: file for file in task.execution.artifacts}
        picture = (run_directory / "picture.png").read_bytes()
        return {
            "metrics": "native" if reports["a"].value == 1.0 else None,
            "params": "native" if task.hyperparams["General"]["lr"].value == "0.1" else None,
            "tags": "native" if task.hyperparams["properties"]["team"].value == "vision" else None,
            "figure": "native" if Path(media["figures/loss"]).read_bytes() == picture else None,
            "image": "native" if Path(media["image"]).read_bytes() == picture else None,
            "histogram": "native" if json.loads(reports["weights"].plot_str)["data"][0]["y"] == [3.0, 1.0] else None,
            "text": "native" if "some *text*" in Path(media["note"]).read_text() else None,
            "table": "native" if json.loads(reports["words"].plot_str)["data"][0]["type"] == "table" else None,
            "html": "native" if "a page" in Path(media["page"]).read_text() else None,
            "audio": "native" if Path(media["sound"]).read_bytes().startswith(b"RIFF") else None,
            "video": "native" if Path(media["clip"]).read_bytes().startswith(b"GIF") else None,
            "dataset": "artifact" if "train/digits" in task.hyperparams["Datasets"] else None,
            "artifact": "native" if Path(artifacts["folder/file.txt"].uri).read_text() == "a file" else None,
            "checkpoint": "artifact"
            if "snapshot" in json.loads(Path(artifacts["snapshots"].uri).read_text())
            else None,
            "status": "artifact" if task.tags == ["FINISHED"] else None,
        }

    @pytest.mark.slow  # Three processes import the client library.
    def test_killed_delivery_loses_and_repeats_nothing(self, tmp_path: Path) -> None:
        super().test_killed_delivery_loses_and_repeats_nothing(tmp_path)
