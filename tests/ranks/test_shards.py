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
from pte_tracking._snapshots.shards import together
from pte_tracking._store import checkpoint_files
from tests.ranks import scenarios
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two ranks, whose snapshots are those of steps 2, 4, 6 and 8."""
    folder = tmp_path_factory.mktemp("by-two")
    on_ranks("trained", 2, folder)
    return folder


@pytest.fixture
def folder(by_two: Path, tmp_path: Path) -> Path:
    """A copy of it for the test alone."""
    shutil.copytree(by_two / "run", tmp_path / "run")
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


def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    for result in on_ranks("exact", 2, tmp_path):
        assert result["differing"] == []
        assert result["same log"]
    state = load(tmp_path / "whole" / "snapshot_iter_2")
    (other,) = state["ranks"]
    assert "layers.1.running_mean" in other["buffers"]["main"], "else this test would not see that they are kept"


@pytest.mark.parametrize(
    ("kind", "before", "now"),
    [("", 1, 2), ("", 2, 1), ("", 2, 4), ("", 2, 2), ("_ddp", 1, 2), ("_ddp", 2, 1), ("_ddp", 2, 4)],
)
def test_another_number_of_ranks_goes_on_with_the_same_weights(
    kind: str, before: int, now: int, tmp_path: Path
) -> None:
    first = on_ranks(f"trained{kind}", before, tmp_path)
    newest = tmp_path / "run" / ("snapshot_iter_8" if before == 2 else "snapshot_iter_16")
    saved = load(newest) if kind else together(newest)
    results = on_ranks(f"went_on{kind}", now, tmp_path)
    restored = torch.load(tmp_path / "restored")
    assert same(restored, {part: saved[part] for part in ("models", "optimizers")})
    steps = 16 // before
    for result in results:
        assert result == {"step": steps, "id": first[0], "iterations": steps + 8 // now, "epoch": 3}
    assert [row["iteration"] for row in scenarios.rows(tmp_path / "run")] == list(range(1, steps + 8 // now + 1))


@pytest.mark.parametrize(("before", "now"), [("trained", "went_on_ddp"), ("trained_ddp", "went_on")])
def test_shards_and_whole_models_go_on_from_each_other(before: str, now: str, tmp_path: Path) -> None:
    on_ranks(before, 2, tmp_path)
    newest = tmp_path / "run" / "snapshot_iter_8"
    saved = together(newest) if newest.is_dir() else load(newest)
    on_ranks(now, 2, tmp_path)
    restored = torch.load(tmp_path / "restored")
    assert same(restored, {part: saved[part] for part in ("models", "optimizers")})


def test_a_process_without_ranks_goes_on_from_shards(folder: Path) -> None:
    saved = together(folder / "run" / "snapshot_iter_8")
    manager = alone(folder / "run")
    resumed = manager.resume()
    assert resumed is not None
    assert (resumed.step, resumed.path) == (8, "snapshot_iter_8")
    assert same(manager.models["main"].state_dict(), saved["models"]["main"])


def test_files_take_the_places_of_folders_where_a_process_without_ranks_goes_back(folder: Path) -> None:
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


def test_names_in_a_snapshot_of_ddp_have_no_prefix(tmp_path: Path) -> None:
    on_ranks("trained_ddp", 2, tmp_path)
    state = torch.load(tmp_path / "run" / "snapshot_iter_2")
    assert list(state["models"]["main"]) == list(scenarios.Learner().state_dict())


def test_one_command_makes_one_file_that_torch_reads_and_a_run_goes_on_from(folder: Path) -> None:
    snapshot, file = folder / "run" / "snapshot_iter_4", folder / "one.pt"
    done = CliRunner().invoke(app, ["convert", str(snapshot), str(file)])
    assert done.exit_code == 0, done.output
    state = torch.load(file)
    assert same(state["models"], together(snapshot)["models"])
    assert not any(tensor.is_meta for tensor in state["models"]["main"].values())
    manager = alone(folder / "run")
    resumed = manager.resume(file)
    assert resumed is not None
    assert resumed.step == 4
    assert same(manager.models["main"].state_dict(), state["models"]["main"])


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["run/log", "one.pt"], 2, "expected the folder of a snapshot that lies in shards"),
        (["run", "one.pt"], 1, "snapshot.json is missing"),
        (["run/snapshot_iter_2", "run/log"], 2, "it exists already"),
        (["run/snapshot_iter_2", "no/such/folder/one.pt"], 1, "No such file or directory"),
    ],
)
def test_what_cannot_be_converted_is_told_in_one_line(words: list[str], code: int, reason: str, folder: Path) -> None:
    done = CliRunner().invoke(app, ["convert", *(str(folder / word) for word in words)])
    assert done.exit_code == code
    assert reason in done.output
    assert len(done.output.splitlines()) == 1


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "marker missing": ("snapshot.json", Path.unlink, "not whole, snapshot.json is missing in it"),
    "marker damaged": ("snapshot.json", lambda path: path.write_text("{"), "SHA-256|snapshot.json is damaged"),
    "shard missing": ("__1_0.distcp", Path.unlink, "not whole, __1_0.distcp is missing in it"),
    "shard damaged": ("__0_0.distcp", flip, "__0_0.distcp in it is damaged"),
    "shard cut": ("__0_0.distcp", lambda path: os.truncate(path, 10), r"__0_0.distcp in it is damaged \(10 bytes"),
    "metadata damaged": (".metadata", flip, ".metadata in it is damaged"),
    "rest missing": ("state.pt", Path.unlink, "not whole, state.pt is missing in it"),
    "rest damaged": ("state.pt", flip, "state.pt in it is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_that_is_not_whole_is_not_loaded_and_it_is_said_which(
    damage: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, harm, reason = DAMAGES[damage]
    newest = folder / "run" / "snapshot_iter_8"
    harm(newest / name)
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
def test_ranks_share_the_check_and_agree_on_its_result(damaged: str, folder: Path) -> None:
    newest = folder / "run" / "snapshot_iter_8"
    flip(newest / damaged)
    first, second = on_ranks("checked_together", 2, folder)
    assert first["step"] == second["step"] == 6
    assert first["checked"]["snapshot_iter_6"] == [".metadata", "__1_0.distcp"]
    assert second["checked"]["snapshot_iter_6"] == ["__0_0.distcp", "state.pt"]
    assert first["error"] == second["error"]
    assert f"{newest}: {damaged} in it is damaged" in first["error"]
    assert any(f"{damaged} in it is damaged" in line for line in first["said"])
    assert second["said"] == []


def forge(snapshot: Path, name: str, content: bytes) -> None:
    """Replace a file, and make the marker fit, as whoever can write the folder is able to."""
    (snapshot / name).write_bytes(content)
    marker = msgspec.json.decode((snapshot / checkpoint_files.MARKER).read_bytes(), type=checkpoint_files.Marker)
    checkpoint_files.write_marker(
        snapshot, {file: checkpoint_files.part(snapshot / file) for file in {*marker.files, name}}
    )


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def metadata(snapshot: Path) -> Any:
    with open(snapshot / ".metadata", "rb") as file:
        return pickle.load(file)


def with_path(snapshot: Path) -> bytes:
    found = metadata(snapshot)
    for entry in found.storage_data.values():
        entry.relative_path = "../../outside.distcp"
    return pickle.dumps(found)


def with_any_object(snapshot: Path) -> bytes:
    """The state itself is named as an entry that torch would unpickle."""
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    found = metadata(snapshot)
    for name in found.state_dict_metadata:
        found.state_dict_metadata[name] = BytesStorageMetadata()
    return pickle.dumps(found)


FORGED: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "a command": (".metadata", lambda _: pickle.dumps(Evil())),
    "a way out of the folder": (".metadata", with_path),
    "any object": (".metadata", with_any_object),
    "a changed type": (".metadata", lambda _: b"cpathlib\nPosixPath\n(N}S'name'\nS'../../x'\nstb."),
    "no metadata": (".metadata", lambda _: pickle.dumps({"x": 1})),
    "a shard with a command": ("__0_0.distcp", lambda _: pickle.dumps(Evil()) * 4000),
    "a rest with a command": ("state.pt", lambda _: pickle.dumps(Evil())),
}


@pytest.mark.parametrize("kind", FORGED)
def test_nothing_that_stands_in_a_forged_folder_is_executed(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    name, make = FORGED[kind]
    snapshot = folder / "run" / "snapshot_iter_8"
    forge(snapshot, name, make(snapshot))
    with pytest.raises(SnapshotError, match=f"^{snapshot}: "):
        together(snapshot)
    assert not Path("executed").exists()
    assert snapshot.name == "snapshot_iter_8", "no class of this process was changed"


def test_a_marker_that_names_files_elsewhere_is_refused(folder: Path) -> None:
    snapshot = folder / "run" / "snapshot_iter_8"
    content = json.loads((snapshot / "snapshot.json").read_text())
    content["files"]["../../../log"] = content["files"]["state.pt"]
    (snapshot / "snapshot.json").write_text(json.dumps(content))
    with pytest.raises(SnapshotError, match="names a file outside of the folder"):
        load(snapshot)


def test_what_changes_while_it_is_written_is_not_in_it(tmp_path: Path) -> None:
    assert on_ranks("torn", 2, tmp_path) == [[[1.0], [2.0], [3.0]]] * 2


def test_several_snapshots_of_one_iteration_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    first, _ = on_ranks("two_at_once", 2, tmp_path)
    assert first == ["one_1", "one_2", "one_3", "one_4", "other_3", "other_4", "weights_4"]


def test_a_rank_with_a_full_disk_costs_the_snapshot_and_nothing_else(tmp_path: Path) -> None:
    first, second = on_ranks("full_disk", 2, tmp_path)
    assert first["iterations"] == second["iterations"] == 3
    assert first["announced"] == first["left"] == ["snapshot_iter_3"]


def test_a_rank_that_is_killed_at_any_place_leaves_enough_to_end_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.ranks.kills", tmp_path],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-5000:]


def test_a_rank_without_memory_for_its_copy_costs_the_snapshot_and_nothing_else(tmp_path: Path) -> None:
    for result in on_ranks("no_memory", 2, tmp_path):
        assert result == {"iterations": 3, "announced": ["snapshot_iter_2", "snapshot_iter_3"]}


def test_what_shards_do_not_allow_is_said_at_the_first_iteration(tmp_path: Path) -> None:
    for told in on_ranks("not_possible", 2, tmp_path):
        assert [message.partition(":")[0] for message in told] == ["filename", "snapshot_on_error"]


def test_the_file_of_one_object_is_whole_and_loaded_into_shards(tmp_path: Path) -> None:
    assert on_ranks("object_is_loaded", 2, tmp_path) == [True, True]


def test_mlflow_tracks_a_folder_of_shards_and_a_run_goes_on_from_it_elsewhere(
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
    saved = together(tmp_path / "run" / "snapshot_iter_8")
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
