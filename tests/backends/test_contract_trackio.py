"""Contract tests of the Trackio backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trackio.sqlite_storage import SQLiteStorage

from pte_backends.trackio import TrackioSink
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract
from tests.backends import trackio_store


class TestTrackio(SinkContract):
    large_run_rows = 2000
    generated_runs = 5

    def make_sink(self, folder: Path) -> Sink:
        return trackio_store.new_sink()

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        assert isinstance(sink, TrackioSink)
        return trackio_store.read_points(sink, run_directory)

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        assert isinstance(sink, TrackioSink)
        config = trackio_store.read_config(sink, run_directory)
        kinds = {
            key: value["_type"]
            for row in trackio_store.read_rows(sink, run_directory)
            for key, value in row.items()
            if isinstance(value, dict)
        }
        artifacts = {
            item["name"].partition("-")[0]: item["type"] for item in SQLiteStorage.list_artifacts(sink.project)
        }
        return {
            "metrics": "native" if trackio_store.read_points(sink, run_directory)["a"] == [(1, 1.0)] else None,
            "params": "native" if config["lr"] == 0.1 else None,
            "tags": "artifact" if config["tags/team"] == "vision" else None,
            "figure": "native" if kinds["figures/loss"] == "trackio.image" else None,
            "image": "native" if kinds["image"] == "trackio.image" else None,
            "histogram": "native" if kinds["weights"] == "trackio.histogram" else None,
            "text": "native" if kinds["note"] == "trackio.markdown" else None,
            "table": "native" if kinds["words"] == "trackio.table" else None,
            "html": "native" if kinds["page"] == "trackio.html" else None,
            "audio": "native" if kinds["sound"] == "trackio.audio" else None,
            "video": "native" if kinds["clip"] == "trackio.video" else None,
            "dataset": "artifact" if "datasets/train/digits" in config else None,
            "artifact": "native" if artifacts["folder_file.txt"] == "artifact" else None,
            "checkpoint": "native" if artifacts["checkpoint"] == "model" else None,
            "status": "artifact" if config["run/status"] == "FINISHED" else None,
        }
