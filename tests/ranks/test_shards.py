"""Snapshots of models that lie in shards: exact, whole or none, and good for any number of ranks."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._cli import app
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.shards import gather_shards
from pte_tracking._store import checkpoint_files
from tests.ranks import scenarios
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_rank_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two ranks, whose snapshots are those of steps 2, 4, 6 and 8."""
    folder = tmp_path_factory.mktemp("by-two")
    on_ranks("trained", 2, folder)
    return folder


@pytest.fixture
def folder(two_rank_run: Path, tmp_path: Path) -> Path:
    """A copy of it for the test alone."""
    shutil.copytree(two_rank_run / "run", tmp_path / "run")
    return tmp_path


def alone(out: Path) -> pte.ExtensionsManager:
    """One process without torch.distributed, and a model in one piece."""
    net = scenarios.Learner()
    saved = extensions.snapshot(trigger=(2, "iteration"))
    return scenarios.learning(out, net, torch.optim.Adam(net.parameters(), 0.01), saved, epochs=3)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def test_resumed_sharded_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    for result in on_ranks("exact", 2, tmp_path):
        assert result["differing"] == []
        assert result["same log"]
    state = load(tmp_path / "whole" / "snapshot_iter_2")
    (other,) = state["ranks"]
    assert "layers.1.running_mean" in other["buffers"]["main"], "else this test would not see that they are kept"


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [("", 1, 2), ("", 2, 1), ("", 2, 4), ("", 2, 2), ("_ddp", 1, 2), ("_ddp", 2, 1), ("_ddp", 2, 4)],
)
def test_resume_on_other_world_size_restores_same_weights(kind: str, before: int, after: int, tmp_path: Path) -> None:
    first = on_ranks(f"trained{kind}", before, tmp_path)
    newest = tmp_path / "run" / ("snapshot_iter_8" if before == 2 else "snapshot_iter_16")
    saved = load(newest) if kind else gather_shards(newest)
    results = on_ranks(f"went_on{kind}", after, tmp_path)
    restored = torch.load(tmp_path / "restored")
    assert same(restored, {part: saved[part] for part in ("models", "optimizers")})
    steps = 16 // before
    for result in results:
        assert result == {"step": steps, "id": first[0], "iterations": steps + 8 // after, "epoch": 3}
    assert [row["iteration"] for row in scenarios.rows(tmp_path / "run")] == list(range(1, steps + 8 // after + 1))


@pytest.mark.parametrize(("before", "after"), [("trained", "went_on_ddp"), ("trained_ddp", "went_on")])
def test_resume_between_sharded_and_ddp_models_restores_weights(before: str, after: str, tmp_path: Path) -> None:
    on_ranks(before, 2, tmp_path)
    newest = tmp_path / "run" / "snapshot_iter_8"
    saved = gather_shards(newest) if newest.is_dir() else load(newest)
    on_ranks(after, 2, tmp_path)
    restored = torch.load(tmp_path / "restored")
    assert same(restored, {part: saved[part] for part in ("models", "optimizers")})


def test_single_process_resumes_from_sharded_snapshot(folder: Path) -> None:
    saved = gather_shards(folder / "run" / "snapshot_iter_8")
    manager = alone(folder / "run")
    resumed = manager.resume()
    assert resumed is not None
    assert (resumed.step, resumed.path) == (8, "snapshot_iter_8")
    assert same(manager.models["main"].state_dict(), saved["models"]["main"])


def test_single_process_rewind_replaces_sharded_snapshots_by_files(folder: Path) -> None:
    manager = alone(folder / "run")
    manager.resume(folder / "run" / "snapshot_iter_4")
    with manager:
        while manager.iteration < 8:
            with manager.run_iteration():
                pass
    assert [(one.path, (folder / "run" / one.path).is_dir()) for one in manager.run.checkpoints()] == [
        ("snapshot_iter_2", True),
        ("snapshot_iter_4", True),
        ("snapshot_iter_6", False),
        ("snapshot_iter_8", False),
    ]


def test_ddp_snapshot_parameter_names_have_no_prefix(tmp_path: Path) -> None:
    on_ranks("trained_ddp", 2, tmp_path)
    state = torch.load(tmp_path / "run" / "snapshot_iter_2")
    assert list(state["models"]["main"]) == list(scenarios.Learner().state_dict())


def test_convert_writes_file_that_torch_loads_and_run_resumes_from(folder: Path) -> None:
    snapshot, file = folder / "run" / "snapshot_iter_4", folder / "one.pt"
    done = CliRunner().invoke(app, ["convert", str(snapshot), str(file)])
    assert done.exit_code == 0, done.output
    state = torch.load(file)
    assert same(state["models"], gather_shards(snapshot)["models"])
    assert not any(tensor.is_meta for tensor in state["models"]["main"].values())
    manager = alone(folder / "run")
    resumed = manager.resume(file)
    assert resumed is not None
    assert resumed.step == 4
    assert same(manager.models["main"].state_dict(), state["models"]["main"])


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["run/log", "one.pt"], 2, "expected the directory of a sharded snapshot"),
        (["run", "one.pt"], 1, "snapshot.json is missing"),
        (["run/snapshot_iter_2", "run/log"], 2, "already exists"),
        (["run/snapshot_iter_2", "no/such/folder/one.pt"], 1, "No such file or directory"),
    ],
)
def test_convert_invalid_arguments_fail_with_one_line(words: list[str], code: int, reason: str, folder: Path) -> None:
    done = CliRunner().invoke(app, ["convert", *(str(folder / word) for word in words)])
    assert done.exit_code == code
    assert reason in done.output
    assert len(done.output.splitlines()) == 1


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing index": ("snapshot.json", Path.unlink, "incomplete: snapshot.json is missing"),
    "damaged index": ("snapshot.json", lambda path: path.write_text("{"), "SHA-256|snapshot.json is damaged"),
    "missing shard": ("__1_0.distcp", Path.unlink, "incomplete: __1_0.distcp is missing"),
    "damaged shard": ("__0_0.distcp", flip_bit, "__0_0.distcp is damaged"),
    "truncated shard": (
        "__0_0.distcp",
        lambda path: os.truncate(path, 10),
        r"__0_0.distcp is damaged \(expected \d+ bytes, got 10",
    ),
    "damaged metadata": (".metadata", flip_bit, ".metadata is damaged"),
    "missing state": ("state.pt", Path.unlink, "incomplete: state.pt is missing"),
    "damaged state": ("state.pt", flip_bit, "state.pt is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_snapshot_is_skipped_and_named(damage: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, damage_file, reason = DAMAGES[damage]
    newest = folder / "run" / "snapshot_iter_8"
    damage_file(newest / name)
    with pytest.raises(SnapshotError, match=f"^{newest}: .*({reason})"):
        load(newest)
    verified = CliRunner().invoke(app, ["verify", str(folder / "run")])
    assert verified.exit_code == 1
    assert str(newest) in verified.output
    resumed = alone(folder / "run").resume()
    assert resumed is not None
    assert resumed.step == 6
    assert str(newest) in caplog.text


@pytest.mark.parametrize("damaged", [".metadata", "__0_0.distcp", "__1_0.distcp", "state.pt"])
def test_ranks_share_verification_and_agree_on_result(damaged: str, folder: Path) -> None:
    newest = folder / "run" / "snapshot_iter_8"
    flip_bit(newest / damaged)
    first, second = on_ranks("checked_together", 2, folder)
    assert first["step"] == second["step"] == 6
    assert first["checked"]["snapshot_iter_6"] == [".metadata", "__1_0.distcp"]
    assert second["checked"]["snapshot_iter_6"] == ["__0_0.distcp", "state.pt"]
    assert first["error"] == second["error"]
    assert f"{newest}: {damaged} is damaged" in first["error"]
    assert any(f"{damaged} is damaged" in line for line in first["said"])
    assert second["said"] == []


def forge(snapshot: Path, name: str, content: bytes) -> None:
    """Replace a file, and make the marker fit, as whoever can write the folder is able to."""
    (snapshot / name).write_bytes(content)
    marker = msgspec.json.decode(
        (snapshot / checkpoint_files.SNAPSHOT_INDEX).read_bytes(), type=checkpoint_files.SnapshotIndex
    )
    checkpoint_files.write_index(
        snapshot, {file: checkpoint_files.digest_file(snapshot / file) for file in {*marker.files, name}}
    )


class CommandOnUnpickle:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def metadata(snapshot: Path) -> Any:
    with open(snapshot / ".metadata", "rb") as file:
        return pickle.load(file)


def metadata_with_outside_path(snapshot: Path) -> bytes:
    checkpoint_metadata = metadata(snapshot)
    for entry in checkpoint_metadata.storage_data.values():
        entry.relative_path = "../../outside.distcp"
    return pickle.dumps(checkpoint_metadata)


def metadata_with_any_object(snapshot: Path) -> bytes:
    """The state itself is named as an entry that torch would unpickle."""
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    checkpoint_metadata = metadata(snapshot)
    for name in checkpoint_metadata.state_dict_metadata:
        checkpoint_metadata.state_dict_metadata[name] = BytesStorageMetadata()
    return pickle.dumps(checkpoint_metadata)


FORGED: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "command in metadata": (".metadata", lambda _: pickle.dumps(CommandOnUnpickle())),
    "outside path": (".metadata", metadata_with_outside_path),
    "arbitrary object": (".metadata", metadata_with_any_object),
    "patched type": (".metadata", lambda _: b"cpathlib\nPosixPath\n(N}S'name'\nS'../../x'\nstb."),
    "invalid metadata": (".metadata", lambda _: pickle.dumps({"x": 1})),
    "command in shard": ("__0_0.distcp", lambda _: pickle.dumps(CommandOnUnpickle()) * 4000),
    "command in state": ("state.pt", lambda _: pickle.dumps(CommandOnUnpickle())),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_snapshot_executes_no_code(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    name, make = FORGED[kind]
    snapshot = folder / "run" / "snapshot_iter_8"
    forge(snapshot, name, make(snapshot))
    with pytest.raises(SnapshotError, match=f"^{snapshot}: "):
        gather_shards(snapshot)
    assert not Path("executed").exists()
    assert snapshot.name == "snapshot_iter_8", "no class of this process was changed"


def test_snapshot_index_with_outside_path_raises(folder: Path) -> None:
    snapshot = folder / "run" / "snapshot_iter_8"
    content = json.loads((snapshot / "snapshot.json").read_text())
    content["files"]["../../../log"] = content["files"]["state.pt"]
    (snapshot / "snapshot.json").write_text(json.dumps(content))
    with pytest.raises(SnapshotError, match="names a file outside"):
        load(snapshot)


def test_snapshot_excludes_changes_made_during_write(tmp_path: Path) -> None:
    assert on_ranks("torn", 2, tmp_path) == [[[1.0], [2.0], [3.0]]] * 2


def test_several_snapshots_in_one_iteration_do_not_deadlock(tmp_path: Path) -> None:
    first, _ = on_ranks("two_at_once", 2, tmp_path)
    assert first == ["one_1", "one_2", "one_3", "one_4", "other_3", "other_4", "weights_4"]


def test_full_disk_on_one_rank_loses_only_that_snapshot(tmp_path: Path) -> None:
    first, second = on_ranks("full_disk", 2, tmp_path)
    assert first["iterations"] == second["iterations"] == 3
    assert first["announced"] == first["left"] == ["snapshot_iter_3"]


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
    for result in on_ranks("no_memory", 2, tmp_path):
        assert result == {"iterations": 3, "announced": ["snapshot_iter_2", "snapshot_iter_3"]}


def test_unsupported_snapshot_options_raise_at_first_iteration(tmp_path: Path) -> None:
    for messages in on_ranks("not_possible", 2, tmp_path):
        assert [message.partition(":")[0] for message in messages] == ["filename", "snapshot_on_error"]


def test_object_snapshot_is_loaded_into_sharded_model(tmp_path: Path) -> None:
    assert on_ranks("object_is_loaded", 2, tmp_path) == [True, True]


def test_sharded_snapshot_tracked_by_mlflow_resumes_in_other_directory(
    tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setenv("SINKS", "json,mlflow")
    monkeypatch.setenv("N_RETAINS", "2")
    on_ranks("trained", 2, tmp_path)
    client = MlflowClient(mlflow_store)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    tracked = {one.tags["pte.checkpoint"]: one for one in client.search_logged_models(["0"])}
    assert sorted(tracked) == ["snapshot_iter_6", "snapshot_iter_8"], "those that were pruned are gone"
    files = {
        Path(one.path).name
        for one in client.list_logged_model_artifacts(tracked["snapshot_iter_8"].model_id, "snapshot_iter_8")
    }
    assert files == {".metadata", "__0_0.distcp", "__1_0.distcp", "snapshot.json", "state.pt"}

    manager = alone(tmp_path / "elsewhere")
    resumed = manager.resume(f"runs:/{run.info.run_id}")
    assert resumed is not None
    assert resumed.step == 8
    saved = gather_shards(tmp_path / "run" / "snapshot_iter_8")
    assert same(manager.models["main"].state_dict(), saved["models"]["main"])
    assert manager.run.id == json.loads((tmp_path / "run" / "run.json").read_text())["id"]
    assert not list((tmp_path / "elsewhere").glob(".fetched*"))
    manager.close()

    # In the run's own directory, again and again, as a job that is requeued does.
    for number in range(2):
        again = alone(tmp_path / "run")
        resumed = again.resume(f"runs:/{run.info.run_id}")
        assert resumed is not None, number
        assert resumed.step == 8
        again.close()
