"""Sharded snapshots: exact resume, change of world size, conversion, and failures during a save."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pte_tracking._cli import app
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.shards import gather_shards
from tests.ranks import snapshot_scenarios
from tests.ranks.components import RankDependentNet, is_equal, make_single_process_manager, read_rows
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow

TRAIN = {"sharded": snapshot_scenarios.train_sharded, "ddp": snapshot_scenarios.train_ddp}
RESUME = {"sharded": snapshot_scenarios.resume_sharded, "ddp": snapshot_scenarios.resume_ddp}


def test_resumed_sharded_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    for result in on_ranks(snapshot_scenarios.compare_resumed_training, 2, tmp_path):
        assert result["differing"] == []
        assert result["same log"]
    state = load(tmp_path / "uninterrupted" / "snapshot_iter_2")
    (other,) = state["ranks"]
    assert "layers.1.running_mean" in other["buffers"]["main"], "the model needs state that differs between ranks"


def test_resumed_sharded_run_with_one_name_for_all_snapshots_is_exact(tmp_path: Path) -> None:
    for result in on_ranks(snapshot_scenarios.compare_training_resumed_from_fixed_name, 2, tmp_path):
        assert result["differing"] == []
        assert result["same log"]
    assert [path.name for path in (tmp_path / "interrupted").glob("*newest*")] == ["newest"]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("sharded", 1, 2),
        ("sharded", 2, 1),
        ("sharded", 2, 4),
        ("sharded", 2, 2),
        ("ddp", 1, 2),
        ("ddp", 2, 1),
        ("ddp", 2, 4),
    ],
)
def test_resume_on_other_world_size_restores_same_weights(kind: str, before: int, after: int, tmp_path: Path) -> None:
    first = on_ranks(TRAIN[kind], before, tmp_path)
    newest = tmp_path / "run" / ("snapshot_iter_8" if before == 2 else "snapshot_iter_16")
    saved = load(newest) if kind == "ddp" else gather_shards(newest)
    results = on_ranks(RESUME[kind], after, tmp_path)
    restored = torch.load(tmp_path / "restored")
    assert is_equal(restored, {part: saved[part] for part in ("models", "optimizers")})
    steps = 16 // before
    for result in results:
        assert result == {"step": steps, "id": first[0], "iterations": steps + 8 // after, "epoch": 3}
    assert [row["iteration"] for row in read_rows(tmp_path / "run")] == list(range(1, steps + 8 // after + 1))


@pytest.mark.parametrize(("before", "after"), [("sharded", "ddp"), ("ddp", "sharded")])
def test_resume_between_sharded_and_ddp_models_restores_weights(before: str, after: str, tmp_path: Path) -> None:
    on_ranks(TRAIN[before], 2, tmp_path)
    newest = tmp_path / "run" / "snapshot_iter_8"
    saved = gather_shards(newest) if newest.is_dir() else load(newest)
    on_ranks(RESUME[after], 2, tmp_path)
    restored = torch.load(tmp_path / "restored")
    assert is_equal(restored, {part: saved[part] for part in ("models", "optimizers")})


def test_single_process_resumes_from_sharded_snapshot(folder: Path) -> None:
    saved = gather_shards(folder / "run" / "snapshot_iter_8")
    manager = make_single_process_manager(folder / "run")
    resumed = manager.resume()
    assert resumed is not None
    assert (resumed.step, resumed.path) == (8, "snapshot_iter_8")
    assert is_equal(manager.models["main"].state_dict(), saved["models"]["main"])


def test_single_process_rewind_replaces_sharded_snapshots_by_files(folder: Path) -> None:
    manager = make_single_process_manager(folder / "run")
    manager.resume(folder / "run" / "snapshot_iter_4")
    with manager:
        while manager.iteration < 8:
            with manager.run_iteration():
                pass
    assert [
        (checkpoint.path, (folder / "run" / checkpoint.path).is_dir()) for checkpoint in manager.run.checkpoints()
    ] == [
        ("snapshot_iter_2", True),
        ("snapshot_iter_4", True),
        ("snapshot_iter_6", False),
        ("snapshot_iter_8", False),
    ]


def test_ddp_snapshot_parameter_names_have_no_prefix(tmp_path: Path) -> None:
    on_ranks(snapshot_scenarios.train_ddp, 2, tmp_path)
    state = torch.load(tmp_path / "run" / "snapshot_iter_2")
    assert list(state["models"]["main"]) == list(RankDependentNet().state_dict())


def test_convert_writes_file_that_torch_loads_and_run_resumes_from(folder: Path) -> None:
    snapshot, file = folder / "run" / "snapshot_iter_4", folder / "converted.pt"
    completed = CliRunner().invoke(app, ["convert", str(snapshot), str(file)])
    assert completed.exit_code == 0, completed.output
    state = torch.load(file)
    assert is_equal(state["models"], gather_shards(snapshot)["models"])
    assert not any(tensor.is_meta for tensor in state["models"]["main"].values())
    manager = make_single_process_manager(folder / "run")
    resumed = manager.resume(file)
    assert resumed is not None
    assert resumed.step == 4
    assert is_equal(manager.models["main"].state_dict(), state["models"]["main"])


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["run/log", "converted.pt"], 2, "expected the directory of a sharded snapshot"),
        (["run", "converted.pt"], 1, "snapshot.json is missing"),
        (["run/snapshot_iter_2", "run/log"], 2, "already exists"),
        (["run/snapshot_iter_2", "no/such/folder/converted.pt"], 1, "No such file or directory"),
    ],
)
def test_convert_invalid_arguments_fail_with_one_line(words: list[str], code: int, reason: str, folder: Path) -> None:
    completed = CliRunner().invoke(app, ["convert", *(str(folder / word) for word in words)])
    assert completed.exit_code == code
    assert reason in completed.output
    assert len(completed.output.splitlines()) == 1


def test_snapshot_excludes_changes_made_during_write(tmp_path: Path) -> None:
    assert on_ranks(snapshot_scenarios.change_weights_during_write, 2, tmp_path) == [[[1.0], [2.0], [3.0]]] * 2


def test_several_snapshots_in_one_iteration_do_not_deadlock(tmp_path: Path) -> None:
    first, _ = on_ranks(snapshot_scenarios.save_several_snapshots_at_once, 2, tmp_path)
    assert first == ["first_1", "first_2", "first_3", "first_4", "other_3", "other_4", "weights_4"]


def test_full_disk_on_one_rank_loses_only_that_snapshot(tmp_path: Path) -> None:
    first, second = on_ranks(snapshot_scenarios.save_with_full_disk, 2, tmp_path)
    assert first["iterations"] == second["iterations"] == 3
    assert first["registered"] == first["remaining"] == ["snapshot_iter_3"]


def test_rank_killed_during_snapshot_resumes_to_same_result(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.ranks.kills", tmp_path],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-5000:]


def test_memory_error_on_one_rank_loses_only_that_snapshot(tmp_path: Path) -> None:
    for result in on_ranks(snapshot_scenarios.save_without_memory, 2, tmp_path):
        assert result == {"iterations": 3, "registered": ["snapshot_iter_2", "snapshot_iter_3"]}


def test_unsupported_snapshot_options_raise_at_first_iteration(tmp_path: Path) -> None:
    for messages in on_ranks(snapshot_scenarios.collect_unsupported_option_errors, 2, tmp_path):
        assert [message.partition(":")[0] for message in messages] == ["snapshot_on_error"]


def test_object_snapshot_is_loaded_into_sharded_model(tmp_path: Path) -> None:
    assert on_ranks(snapshot_scenarios.load_object_snapshot, 2, tmp_path) == [True, True]


def test_sharded_snapshot_tracked_by_mlflow_resumes_in_other_directory(
    tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setenv("SINKS", "json,mlflow")
    monkeypatch.setenv("N_RETAINS", "2")
    on_ranks(snapshot_scenarios.train_sharded, 2, tmp_path)
    client = MlflowClient(mlflow_store)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    tracked = {model.tags["pte.checkpoint"]: model for model in client.search_logged_models(["0"])}
    assert sorted(tracked) == ["snapshot_iter_6", "snapshot_iter_8"], "MLflow must list the retained snapshots only"
    files = {
        Path(artifact.path).name
        for artifact in client.list_logged_model_artifacts(tracked["snapshot_iter_8"].model_id, "snapshot_iter_8")
    }
    assert files == {".metadata", "__0_0.distcp", "__1_0.distcp", "snapshot.json", "state.pt"}

    manager = make_single_process_manager(tmp_path / "elsewhere")
    resumed = manager.resume(f"runs:/{run.info.run_id}")
    assert resumed is not None
    assert resumed.step == 8
    saved = gather_shards(tmp_path / "run" / "snapshot_iter_8")
    assert is_equal(manager.models["main"].state_dict(), saved["models"]["main"])
    assert manager.run.id == json.loads((tmp_path / "run" / "run.json").read_text())["id"]
    manager.close()
    assert not list((tmp_path / "elsewhere").glob(".fetched*"))

    # Resume twice in the run directory, as a requeued job does.
    for number in range(2):
        manager = make_single_process_manager(tmp_path / "run")
        resumed = manager.resume(f"runs:/{run.info.run_id}")
        assert resumed is not None, number
        assert resumed.step == 8
        manager.close()
