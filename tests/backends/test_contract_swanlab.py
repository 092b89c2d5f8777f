"""Contract tests of the SwanLab backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from swanlab.proto.swanlab.metric.column.v1 import column_pb2
from swanlab.proto.swanlab.run.v1.run_pb2 import RUN_STATE_FINISHED

from pte_backends.swanlab import SwanLabSink
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract
from tests.backends import swanlab_files


class TestSwanLab(SinkContract):
    large_run_rows = 500
    generated_runs = 10

    def make_sink(self, folder: Path) -> Sink:
        return SwanLabSink("project")

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        return swanlab_files.read_points(run_directory)

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        records = swanlab_files.read_records(run_directory)
        config = swanlab_files.read_config(run_directory)
        kinds = {record.media.key: record.media.type for record in records}
        files = {record.save.name for record in records}
        return {
            "metrics": "native" if swanlab_files.read_points(run_directory)["a"] == [(1, 1.0)] else None,
            "params": "native" if config["lr"] == 0.1 else None,
            "tags": "artifact" if config["tags/team"] == "vision" else None,
            "figure": "native" if kinds["figures/loss"] == column_pb2.COLUMN_TYPE_IMAGE else None,
            "image": "native" if kinds["image"] == column_pb2.COLUMN_TYPE_IMAGE else None,
            "histogram": "native" if kinds["weights"] == column_pb2.COLUMN_TYPE_ECHARTS else None,
            "text": "native" if kinds["note"] == column_pb2.COLUMN_TYPE_TEXT else None,
            "table": "artifact" if "artifacts/table.json" in files else None,
            "html": "native" if kinds["page"] == column_pb2.COLUMN_TYPE_HTML else None,
            "audio": "native" if kinds["sound"] == column_pb2.COLUMN_TYPE_AUDIO else None,
            "video": "native" if kinds["clip"] == column_pb2.COLUMN_TYPE_IMAGE else None,
            "dataset": "artifact" if "datasets/train/digits" in config else None,
            "artifact": "native" if "artifacts/folder/file.txt" in files else None,
            "checkpoint": "artifact" if any("snapshot" in name for name in files) else None,
            "status": "native" if records[-1].finish.state == RUN_STATE_FINISHED else None,
        }
