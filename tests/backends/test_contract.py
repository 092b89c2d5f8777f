"""Contract tests of the JSON and TensorBoard backends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
from tensorboard.plugins.hparams import metadata

from pte_backends.json import JsonSink
from pte_backends.tensorboard import TensorBoardSink
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract


class TestJson(SinkContract):
    keeps_non_finite = False

    def make_sink(self, folder: Path) -> Sink:
        return JsonSink()

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        points: Points = {}
        for row in json.loads((run_directory / "log").read_text()):
            step = row.pop("iteration")
            for key, value in row.items():
                points.setdefault(key, []).append((step, float("nan") if value is None else value))
        return points

    def find_source(self, sink: Sink, run_directory: Path) -> tuple[str, Mapping[str, str]]:
        return str(run_directory / "log"), {}

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        (row,) = json.loads((run_directory / "log").read_text())
        assert row == {"a": 1.0, "epoch": 0.5, "iteration": 1}
        return {"metrics": "native"}


class TestTensorBoard(SinkContract):
    is_single_precision = True

    def make_sink(self, folder: Path) -> Sink:
        return TensorBoardSink()

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        events = EventAccumulator(str(run_directory), size_guidance={"scalars": 0})
        events.Reload()
        return {
            tag: [(scalar.step, scalar.value) for scalar in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }

    def find_source(self, sink: Sink, run_directory: Path) -> tuple[str, Mapping[str, str]]:
        return str(run_directory), {}

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        events = EventAccumulator(str(run_directory), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()
        plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()["tensors"]}
        images = events.Tags()["images"]
        return {
            "metrics": "native" if "a" in events.Tags()["scalars"] else None,
            "params": "native" if metadata.SESSION_START_INFO_TAG in plugins else None,
            "figure": "native" if "figures/loss" in images else None,
            "image": "native" if "image" in images else None,
            "histogram": "native" if "weights" in events.Tags()["histograms"] else None,
            "text": "native" if plugins.get("note") == "text" else None,
            "table": "artifact" if plugins.get("words") == "text" else None,
            "audio": "native" if plugins.get("sound") == "audio" else None,
            "video": "native" if "clip" in images else None,
            "dataset": "artifact" if plugins.get("dataset/train/digits") == "text" else None,
            "status": "native" if metadata.SESSION_END_INFO_TAG in plugins else None,
        }
