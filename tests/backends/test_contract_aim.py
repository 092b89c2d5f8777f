"""Contract tests of the Aim backend, read with Aim's own reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pte_backends.aim import AimSink
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract
from tests.backends.aim_runs import CONTEXT, read_run


class TestAim(SinkContract):
    large_run_rows = 200  # Aim stores about 1,000 values per second.
    large_run_keys = 5
    generated_runs = 2

    @pytest.fixture(autouse=True)
    def _repository(self, aim_repository: str) -> None:
        self.repository = aim_repository

    def make_sink(self, folder: Path) -> Sink:
        return AimSink(self.repository)

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        points: Points = {}
        for metric in read_run(self.repository, run_directory).metrics():
            steps, (values, *_) = metric.data.items_list()
            points[metric.name] = list(zip(steps, values, strict=True))
        return points

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        run = read_run(self.repository, run_directory)
        images = {name: run.get_image_sequence(name, CONTEXT) for name in ("figures/loss", "image")}
        weights, note = run.get_distribution_sequence("weights", CONTEXT), run.get_text_sequence("note", CONTEXT)
        sound = run.get_audio_sequence("sound", CONTEXT)
        return {
            "metrics": "native" if run.get_metric("a", CONTEXT) else None,
            "params": "native" if run["hparams", "lr"] == 0.1 else None,
            "tags": "native" if "team: vision" in run.tags else None,
            "figure": "native" if images["figures/loss"].values.last_value().size == (1, 1) else None,
            "image": "native" if images["image"].values.last_value().size == (1, 1) else None,
            "histogram": "native" if weights.values.last_value().weights.tolist() == [3.0, 1.0] else None,
            "text": "native" if note.values.last_value().data == "some *text*" else None,
            "table": "artifact" if "table.json" in run.artifacts else None,
            "html": "artifact" if "page.html" in run.artifacts else None,
            "audio": "native" if sound.values.last_value().get().read().startswith(b"RIFF") else None,
            "video": "artifact" if "clip.gif" in run.artifacts else None,
            "dataset": "artifact" if run["datasets", "train/digits"] else None,
            "artifact": "native" if "folder/file.txt" in run.artifacts else None,
            "checkpoint": "artifact" if run["checkpoints", "snapshot"]["step"] == 1 else None,
            "status": "native" if not run.active and run["status"] == "FINISHED" else None,
        }
