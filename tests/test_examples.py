"""Tests that run the examples as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pte_tracking._delivery.sync import sync

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # raised inside MLflow
]


def run_example(example: str, *arguments: str, folder: Path, store: str, launcher: Sequence[str] = ()) -> str:
    """Run an example in a folder with an MLflow store and return its output."""
    result = subprocess.run(
        [sys.executable, *launcher, str(EXAMPLES / example), *arguments],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": store},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert result.returncode == 0, result.stderr
    assert sync(folder / "result", timeout=60) == []
    return result.stdout


def read_rows(folder: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((folder / "result" / "log").read_text())
    return loaded


def mlflow_runs(store: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def test_digits_learns_and_logs_same_metrics_to_every_sink(tmp_path: Path, mlflow_store: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    printed = run_example("digits.py", folder=tmp_path, store=mlflow_store)
    log = read_rows(tmp_path)
    assert [row["epoch"] for row in log] == list(range(1, 21))
    assert log[-1]["val/accuracy"] > 0.97
    assert "val/accuracy" in printed

    (tracked,) = mlflow_runs(mlflow_store)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.metrics["val/accuracy"] == log[-1]["val/accuracy"]
    assert tracked.data.params == {"epochs": "20", "lr": "0.001", "seed": "0"}

    accumulator = EventAccumulator(str(tmp_path / "result"))
    accumulator.Reload()
    accuracy = [(point.step, point.value) for point in accumulator.Scalars("val/accuracy")]
    assert accuracy == [(row["iteration"], pytest.approx(row["val/accuracy"])) for row in log]


def test_digits_resume_continues_same_run(tmp_path: Path, mlflow_store: str) -> None:
    run_example("digits.py", "--epochs", "1", folder=tmp_path, store=mlflow_store)
    run_example("digits.py", "--epochs", "2", "--resume", folder=tmp_path, store=mlflow_store)
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2]
    assert len(mlflow_runs(mlflow_store)) == 1


def rows_without_measurements(folder: Path) -> list[dict[str, Any]]:
    """Return the log without values that depend on the machine."""
    return [
        {key: value for key, value in row.items() if key != "elapsed_time" and not key.startswith("system/")}
        for row in read_rows(folder)
    ]


def test_front_ends_log_equal_rows(tmp_path: Path, mlflow_store: str) -> None:
    logs = []
    for example in ("plain_loop.py", "trainer.py", "ignite_loop.py"):
        folder = tmp_path / example
        folder.mkdir()
        run_example(example, "--epochs", "2", folder=folder, store=mlflow_store)
        logs.append(rows_without_measurements(folder))
        assert (folder / "result" / "loss.png").is_file()
    plain, trainer, ignite = logs
    assert len(plain) == 6
    assert trainer == plain
    # Ignite computes its metrics in a different order, which changes the rounding.
    assert [pytest.approx(row) for row in plain] == ignite


@pytest.mark.parametrize("example", ["plain_loop.py", "trainer.py", "ignite_loop.py"])
def test_front_end_resume_continues_rows(example: str, tmp_path: Path, mlflow_store: str) -> None:
    run_example(example, "--epochs", "1", folder=tmp_path, store=mlflow_store)
    run_example(example, "--epochs", "2", "--resume", folder=tmp_path, store=mlflow_store)
    assert [row["iteration"] for row in read_rows(tmp_path)] == [15, 30, 45, 60, 75, 90]


def test_mirror_continues_run_without_its_directory(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/unused.db"
    assert "starts a new run" in run_example("mirror.py", "--epochs", "1", folder=tmp_path, store=store)
    (tmp_path / "result").rename(tmp_path / "lost")
    assert "continues after iteration 45" in run_example("mirror.py", "--epochs", "2", folder=tmp_path, store=store)
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2]


def test_lightning_resume_continues_rows(tmp_path: Path, mlflow_store: str) -> None:
    run_example("lightning_loop.py", "--epochs", "1", folder=tmp_path, store=mlflow_store)
    run_example("lightning_loop.py", "--epochs", "2", "--resume", folder=tmp_path, store=mlflow_store)
    log = read_rows(tmp_path)
    assert [row["iteration"] for row in log if "train/loss" in row] == [14, 29, 44, 59, 74, 89]
    assert [row["iteration"] for row in log if "val/loss" in row] == [44, 89]


@pytest.mark.parametrize("options", [[], ["--fsdp"]])
def test_ddp_two_ranks_form_one_run_that_one_rank_resumes(
    options: list[str], tmp_path: Path, mlflow_store: str
) -> None:
    launcher = ["-m", "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    two_ranks, one_rank = ([*launcher, "--nproc-per-node", number] for number in ("2", "1"))
    run_example("ddp.py", "--epochs", "3", *options, folder=tmp_path, store=mlflow_store, launcher=two_ranks)
    run_example("ddp.py", "--epochs", "4", "--resume", *options, folder=tmp_path, store=mlflow_store, launcher=one_rank)
    log = read_rows(tmp_path)
    # 45 batches of 32 in a single process, 23 on each of two ranks.
    assert [(row["epoch"], row["iteration"]) for row in log] == [(1, 23), (2, 46), (3, 69), (4, 114)]
    assert log[-1]["val/accuracy"] > 0.97
    (tracked,) = mlflow_runs(mlflow_store)
    assert tracked.info.status == "FINISHED"


def test_examples_are_at_most_90_lines_long() -> None:
    for example in EXAMPLES.glob("*.py"):
        assert len(example.read_text().splitlines()) <= 90, example.name
