"""The examples do what they promise, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(example: str, *arguments: str, folder: Path) -> str:
    """What an example prints when it is run in a folder, its MLflow store there too."""
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(folder: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((folder / "result" / "log").read_text())
    return loaded


def mlflow_runs(folder: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_digits_learns_and_shows_the_same_on_every_backend(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    printed = run("digits.py", folder=tmp_path)
    log = rows(tmp_path)
    assert [row["epoch"] for row in log] == list(range(1, 21))
    assert log[-1]["val/accuracy"] > 0.97
    assert "val/accuracy" in printed

    (tracked,) = mlflow_runs(tmp_path)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.metrics["val/accuracy"] == log[-1]["val/accuracy"]
    assert tracked.data.params == {"epochs": "20", "lr": "0.001", "seed": "0"}

    board = EventAccumulator(str(tmp_path / "result"))
    board.Reload()
    accuracy = [(point.step, point.value) for point in board.Scalars("val/accuracy")]
    assert accuracy == [(row["iteration"], pytest.approx(row["val/accuracy"])) for row in log]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_digits_goes_on_as_the_same_run(tmp_path: Path) -> None:
    run("digits.py", "--epochs", "1", folder=tmp_path)
    run("digits.py", "--epochs", "2", "--resume", folder=tmp_path)
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2]
    assert len(mlflow_runs(tmp_path)) == 1
