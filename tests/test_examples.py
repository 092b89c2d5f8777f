"""Tests that run the examples as a user does."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import pte_tracking
from pte_tracking._delivery.sync import sync
from pte_tracking.sinks import JOURNAL, RunStarted, find_events

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # raised inside MLflow
]


def run_example(
    example: str,
    *arguments: str,
    folder: Path,
    store: str,
    launcher: Sequence[str] = (),
    runs: str = "result",
    environment: dict[str, str] | None = None,
) -> str:
    """Run an example in a folder with an MLflow store and return its output.

    Args:
        example: File name of the example.
        arguments: Its arguments.
        folder: Working directory.
        store: URI of the MLflow store.
        launcher: Arguments of Python before the example.
        runs: Pattern of the run directories, all of which are delivered.
        environment: Additional environment variables.
    """
    result = subprocess.run(
        [sys.executable, *launcher, str(EXAMPLES / example), *arguments],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": store, "PTE_TRACKING_PROVENANCE": "full"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert result.returncode == 0, result.stderr
    assert [sync(directory, timeout=60) for directory in folder.glob(runs)] == [[]] * len(list(folder.glob(runs))) != []
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
    assert tracked.data.tags["mlflow.source.name"] == str(EXAMPLES / "digits.py")
    (stored,) = pte_tracking.open_runs(tmp_path)
    assert stored.provenance["torch"] == torch.__version__
    assert tracked.data.tags.get("mlflow.source.git.commit") == stored.provenance.get("git_commit")

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
        {key: value for key, value in row.items() if key != "elapsed_time" and not key.startswith("monitor/")}
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


def test_exported_model_is_loaded_from_registry(tmp_path: Path, mlflow_store: str) -> None:
    printed = run_example("export_model.py", "--epochs", "2", folder=tmp_path, store=mlflow_store)
    best = max(row["val/accuracy"] for row in read_rows(tmp_path))
    assert f"accuracy of models:/digits@best: {best:.4f}" in printed


def check_group(store: str, name: str, children: int) -> None:
    """Check that MLflow shows the runs below one parent."""
    nested = [run for run in mlflow_runs(store) if "mlflow.parentRunId" in run.data.tags]
    (parent,) = [run for run in mlflow_runs(store) if "mlflow.parentRunId" not in run.data.tags]
    assert (parent.info.run_name, len(nested)) == (name, children)
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parent.info.run_id}


def test_optuna_sweep_started_again_completes_study(tmp_path: Path, mlflow_store: str) -> None:
    for trials in ("2", "3"):
        options = ["--trials", trials, "--epochs", "1"]
        printed = run_example("sweep_optuna.py", *options, folder=tmp_path, store=mlflow_store, runs="trials/trial-*")
        assert "best val/loss" in printed
    check_group(mlflow_store, "digits-sweep", 3)


def test_hydra_sweep_is_group_with_one_run_per_job(tmp_path: Path, mlflow_store: str) -> None:
    options = ["-m", "lr=0.1,0.01", "epochs=1"]
    runs = "multirun/sweep_hydra/*/"
    run_example("sweep_hydra.py", *options, folder=tmp_path, store=mlflow_store, runs=runs)
    assert sorted(path.name for path in tmp_path.glob(runs)) == ["epochs=1,lr=0.01", "epochs=1,lr=0.1"]
    assert all((path / ".hydra" / "config.yaml").is_file() for path in tmp_path.glob(runs))
    check_group(mlflow_store, "sweep_hydra", 2)


def test_cross_validation_prints_mean_of_folds(tmp_path: Path, mlflow_store: str) -> None:
    printed = run_example("cross_validation.py", "--folds", "2", folder=tmp_path, store=mlflow_store, runs="folds/*")
    (mean,) = re.findall(r"val/accuracy of 2 folds: (0\.\d+) \+- 0\.\d+", printed)
    assert float(mean) > 0.9
    check_group(mlflow_store, "digits-folds", 2)


def test_ray_trials_killed_once_are_resumed_as_same_runs(tmp_path: Path, mlflow_store: str) -> None:
    pytest.importorskip("ray")
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    runs = "tune/digits-tune/train_*/"
    options: dict[str, Any] = {"folder": tmp_path, "store": mlflow_store, "runs": runs, "environment": environment}
    try:
        printed = run_example("sweep_ray.py", "--kill", **options)
    except AssertionError as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray did not start within its own limit of 15 s, because the machine is busy")
    assert "best accuracy 0.9" in printed
    for directory in tmp_path.glob(runs):
        rows = json.loads((directory / "log").read_text())
        assert [row["iteration"] for row in rows] == [45, 90, 135]
        starts = [event for event, _ in find_events(directory / JOURNAL, RunStarted)]
        assert [start.resumed for start in starts] == [False, True]
    check_group(mlflow_store, "digits-tune", 2)


def test_alerts_report_start_condition_and_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "alerts.py")], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "Training diverged" in done.stderr
    titles = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert [title.partition("] result")[0] for title in titles] == ["[info", "[warning", "[failure"]
    assert titles[1].endswith(": train/loss > 1000")
    # Without addresses in this process, a delivered run is no error.
    assert sync(tmp_path / "result", timeout=60) == []


def test_examples_are_at_most_90_lines_long() -> None:
    for example in EXAMPLES.glob("*.py"):
        assert len(example.read_text().splitlines()) <= 90, example.name


def test_ported_script_adds_20_lines_and_gives_the_same_result(tmp_path: Path, mlflow_store: str) -> None:
    plain, tracked = ((EXAMPLES / "porting" / name).read_text().splitlines() for name in ("plain.py", "tracked.py"))
    changes = difflib.ndiff(plain[1:], tracked[1:])
    assert len([line for line in changes if line.startswith("+ ") and line.strip() != "+"]) <= 20
    printed = subprocess.run(
        [sys.executable, EXAMPLES / "porting" / "plain.py"], capture_output=True, text=True, timeout=100, check=True
    ).stdout
    run_example("porting/tracked.py", "--epochs", "2", folder=tmp_path, store=mlflow_store)
    run_example("porting/tracked.py", folder=tmp_path, store=mlflow_store)  # continues after the second epoch
    last = read_rows(tmp_path)[-1]
    assert printed.splitlines()[-1] == f"test: loss {last['test/loss']:.4f}, accuracy {last['test/accuracy']:.4f}"
    (run,) = mlflow_runs(mlflow_store)
    assert run.data.metrics["test/loss"] == last["test/loss"]


def test_port_to_pte_tracking_has_fewest_new_lines_as_the_comparison_states() -> None:
    root = EXAMPLES.parent
    command = [sys.executable, str(root / "benchmarks" / "porting_lines.py")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    counts = {library: int(count) for library, count in (line.split(": ") for line in printed.splitlines())}
    assert min(counts, key=counts.__getitem__) == "pte_tracking"
    page = (root / "docs" / "why.md").read_text()
    stated = {
        library: int(count) for library, count in re.findall(r"\[(\w+)\]\([^)]*porting/with_\w+\.py\): (\d+)", page)
    }
    assert counts == {"pte_tracking": 20, **stated}


def test_media_reach_tensorboard_and_mlflow(tmp_path: Path, mlflow_store: str) -> None:
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_example("media.py", "--sinks", "tensorboard", "mlflow", folder=tmp_path, store=mlflow_store)
    shown = EventAccumulator(str(tmp_path / "result")).Reload()
    assert [event.step for event in shown.Tensors("hardest tone")] == [20, 40]
    assert [event.step for event in shown.Images("weights")] == [20, 40]
    assert [event.step for event in shown.Tensors("hardest tones")] == [20, 40]
    (run,) = mlflow_runs(mlflow_store)
    assert "tables/hardest tones.json" in run.data.tags["mlflow.loggedArtifacts"]
    folders = [item.path for item in MlflowClient(mlflow_store).list_artifacts(run.info.run_id, "media")]
    assert folders == ["media/audio", "media/html", "media/table", "media/video"]
