"""Contract tests of the JSON and TensorBoard backends."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pte_backends.json import JsonSink
from pte_backends.tensorboard import TensorBoardSink
from pte_tracking.sinks import Sink
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
