"""Events of several kinds with one name, read back from Weights & Biases files and an MLflow store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from mlflow import MlflowClient

from pte_backends.mlflow import MLflowSink
from pte_backends.wandb import WandbSink
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun
from tests.backends.test_mlflow import find_run, list_artifacts, read_artifact
from tests.backends.test_wandb import decode_rows, read_records


def save_picture(run: RecordedRun, name: str, size: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("L", (size, size)).save(buffer, "png")
    (run.directory / name).write_bytes(buffer.getvalue())
    return buffer.getvalue()


def test_wandb_keeps_every_kind_of_a_name(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", WandbSink("p"))
    save_picture(run, "a.png", 4)
    run.journal.append(events.Text, "x", 1, "text")
    run.log(1, {"x": 1.0, "iteration": 7.0})
    run.journal.append(events.Figure, "x", 1, "a.png")
    run.journal.append(events.Image, "x", 1, "a.png")
    run.journal.append(events.Histogram, "x", 1, [0.0, 1.0], [1.0], 0.0, 1.0, 1.0, 1.0)
    run.end()
    found: dict[str, Any] = {}
    for row in decode_rows(read_records(run.directory)):
        assert row["iteration"] == 1
        found |= {key: value["_type"] if isinstance(value, dict) else value for key, value in row.items()}
    assert {key: value for key, value in found.items() if not key.startswith("_")} == {
        "x": "html-file",
        "x/metric": 1.0,
        "x/figure": "image-file",
        "x/image": "image-file",
        "x/histogram": "histogram",
        "iteration": 1,
        "iteration/metric": 7.0,
    }


@pytest.mark.usefixtures("mlflow_environment")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # Raised inside MLflow.
def test_mlflow_keeps_figure_image_text_and_metric_of_a_name(mlflow_store: str, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))
    figure, image = save_picture(run, "figure.png", 4), save_picture(run, "image.png", 5)
    run.log(1, {"x": 1.0})
    run.journal.append(events.Figure, "x", 1, "figure.png")
    run.journal.append(events.Text, "x", 1, "text")
    run.deliver()
    run.journal.append(events.Image, "x", 1, "image.png")
    run.end()
    stored = find_run(mlflow_store, run)
    assert [
        (point.step, point.value) for point in MlflowClient(mlflow_store).get_metric_history(stored.info.run_id, "x")
    ]
    assert read_artifact(stored, "figures/x.png") == figure
    assert read_artifact(stored, "text/x/step_1.md") == b"text"
    pictures = {
        path.split("+")[0]: read_artifact(stored, path)
        for path in list_artifacts(mlflow_store, stored, "images")
        if "compressed" not in path
    }
    assert pictures == {"images/x": figure, "images/x~image": image}
