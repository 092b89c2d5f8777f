"""MLflow runs that exist before the run starts, and that disappear or change while it is delivered."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sync import sync
from pte_tracking.testing import RecordedRun
from tests.backends.test_mlflow import find_runs, read_points
from tests.cli.invocation import invoke
from tests.servers import copy_store

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]


@pytest.fixture(autouse=True)
def _reset_tracking_uri() -> None:
    mlflow.set_tracking_uri(None)


def deliver_run(directory: Path, sink: MLflowSink, value: float = 1.0) -> RecordedRun:
    recorded = RecordedRun(directory, sink)
    recorded.log(1, {"loss": value})
    recorded.end()
    return recorded


def closed_reason(recorded: RecordedRun) -> str:
    return Cursor.load(recorded.directory, "mlflow").closed_reason or ""


def children(uri: str, parent: Run) -> list[Run]:
    runs: list[Run] = MlflowClient(uri).search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    return runs


def reload(uri: str, run: Run) -> Run:
    return MlflowClient(uri).get_run(run.info.run_id)


def test_second_run_in_active_run_becomes_its_child(
    mlflow_store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as active:
        first = deliver_run(tmp_path / "first", MLflowSink(), 1.0)
        second = deliver_run(tmp_path / "second", MLflowSink(), 2.0)
        assert MlflowClient().get_run(active.info.run_id).info.status == "RUNNING"
    (child,) = children(mlflow_store, active)
    assert read_points(mlflow_store, reload(mlflow_store, active)) == {"loss": [(1, 1.0)]}
    assert read_points(mlflow_store, child) == {"loss": [(1, 2.0)]}
    assert (child.info.status, child.info.run_name) == ("FINISHED", second.manifest.name)
    assert caplog.text.count("contains another run already") == 1
    assert first.manifest.id != second.manifest.id


def test_run_started_afresh_does_not_share_run_of_environment(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(mlflow_store)
    named = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", named.info.run_id)
    deliver_run(tmp_path / "run", MLflowSink(mlflow_store), 1.0)
    shutil.rmtree(tmp_path / "run")
    deliver_run(tmp_path / "run", MLflowSink(mlflow_store), 2.0)
    (child,) = children(mlflow_store, named)
    assert read_points(mlflow_store, reload(mlflow_store, named)) == {"loss": [(1, 1.0)]}
    assert read_points(mlflow_store, child) == {"loss": [(1, 2.0)]}


def test_child_is_found_again_without_saved_state(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = MlflowClient(mlflow_store).create_run("0", tags={"pte.run_id": "0" * 32})
    monkeypatch.setenv("MLFLOW_RUN_ID", named.info.run_id)
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    (tmp_path / "run" / "delivery" / "mlflow.json").unlink()
    assert sync(recorded.directory) == []
    (child,) = children(mlflow_store, named)
    assert read_points(mlflow_store, child) == {"loss": [(1, 1.0)]}


def test_claimed_run_is_not_joined(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another training that starts at the same moment has set its claim, but not its tag."""
    named = MlflowClient(mlflow_store).create_run("0", tags={"pte.claim.other": "1"})
    monkeypatch.setenv("MLFLOW_RUN_ID", named.info.run_id)
    deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    assert len(children(mlflow_store, named)) == 1
    tags = MlflowClient(mlflow_store).get_run(named.info.run_id).data.tags
    assert [tag for tag in tags if tag.startswith("pte.")] == ["pte.claim.other"]


def test_unknown_run_of_environment_is_replaced_by_new_run(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    (result,) = find_runs(mlflow_store, recorded)
    assert read_points(mlflow_store, result) == {"loss": [(1, 1.0)]}
    assert "named by MLFLOW_RUN_ID" in caplog.text


@pytest.mark.parametrize("reason", ["does not exist", "contains another run"])
def test_run_id_argument_that_cannot_be_honored_stops_delivery(mlflow_store: str, tmp_path: Path, reason: str) -> None:
    run_id = "0" * 32
    if reason == "contains another run":
        run_id = MlflowClient(mlflow_store).create_run("0", tags={"pte.run_id": "0" * 32}).info.run_id
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store, run_id=run_id))
    assert reason in closed_reason(recorded)
    assert run_id in closed_reason(recorded)
    assert not find_runs(mlflow_store, recorded)
    (pending,) = sync(recorded.directory)
    assert pending.is_closed


def test_run_id_argument_is_continued_and_renamed(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    named = client.create_run(client.create_experiment("elsewhere"), run_name="before")
    deliver_run(tmp_path / "run", MLflowSink(mlflow_store, run_name="after", run_id=named.info.run_id))
    result = client.get_run(named.info.run_id)
    assert (result.info.status, result.info.run_name, result.data.metrics["loss"]) == ("FINISHED", "after", 1.0)


def test_experiment_argument_decides_against_active_run(mlflow_store: str, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as active:
        deliver_run(tmp_path / "run", MLflowSink(experiment="mine"))
    client = MlflowClient(mlflow_store)
    assert not client.get_run(active.info.run_id).data.metrics
    (result,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert result.data.metrics == {"loss": 1.0}


def test_experiment_id_argument_precedes_environment(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(mlflow_store)
    experiment_id = client.create_experiment("mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    deliver_run(tmp_path / "run", MLflowSink(mlflow_store, experiment_id=experiment_id))
    assert len(client.search_runs([experiment_id])) == 1
    unknown = deliver_run(tmp_path / "unknown", MLflowSink(mlflow_store, experiment_id="999"))
    assert "Experiment 999 does not exist" in closed_reason(unknown)


def test_artifact_root_applies_to_new_experiment_only(mlflow_store: str, tmp_path: Path) -> None:
    first = MLflowSink(mlflow_store, "mine", artifact_root="artifacts")
    deliver_run(tmp_path / "first", first)
    deliver_run(tmp_path / "second", first)
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("mine")
    assert experiment.artifact_location.endswith(f"{tmp_path}/artifacts")
    assert len(client.search_runs([experiment.experiment_id])) == 2
    third = deliver_run(tmp_path / "third", MLflowSink(mlflow_store, "mine", artifact_root="elsewhere"))
    assert "artifact_root=" in closed_reason(third)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experiment": "a", "experiment_id": "1"}, "exclude each other"),
        ({"run_id": ""}, "run_id: expected a non-empty string"),
        ({"run_id": "a", "experiment": "b"}, "experiment='b' has no effect"),
        ({"run_id": "a", "artifact_root": "b"}, "artifact_root='b' has no effect"),
        ({"artifact_root": "ftp://me:secret@host/folder"}, "contains credentials"),
    ],
)
def test_options_that_exclude_each_other_raise(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLflowSink(**options)  # type: ignore[arg-type]


def test_sync_to_run_id_leaves_run_of_first_sink(mlflow_store: str, tmp_path: Path) -> None:
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    (first,) = find_runs(mlflow_store, recorded)
    wanted = MlflowClient(mlflow_store).create_run("0").info.run_id
    options = ("--to", "mlflow", "--option", f"tracking_uri={mlflow_store}", "--option", f"run_id={wanted}")
    for _ in range(2):
        result = invoke("sync", recorded.directory, *options)
        assert result.exit_code == 0, result.output
    runs = {run.info.run_id: run for run in find_runs(mlflow_store, recorded)}
    assert set(runs) == {first.info.run_id, wanted}
    assert read_points(mlflow_store, runs[wanted]) == {"loss": [(1, 1.0)]}


def test_sync_to_same_destination_replaces_options(mlflow_store: str, tmp_path: Path) -> None:
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    options = ("--to", "mlflow", "--option", f"tracking_uri={mlflow_store}", "--option", "run_name=12")
    result = invoke("sync", recorded.directory, *options)
    assert result.exit_code == 0, result.output
    (renamed,) = find_runs(mlflow_store, recorded)
    assert renamed.info.run_name == "12"  # A string option that looks like a number.


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("color=red", "unknown option 'color'. Options of this sink: tracking_uri, experiment"),
        ("_run_origin=active", "unknown option '_run_origin'"),
        ("on_rewind=forget", "on_rewind"),
    ],
)
def test_sync_unknown_option_exits_with_2(mlflow_store: str, tmp_path: Path, option: str, message: str) -> None:
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    result = invoke("sync", recorded.directory, "--to", "mlflow", "--option", option)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("entity", ["run", "experiment"])
def test_deleted_run_is_reported_by_sync_until_it_is_restored(mlflow_store: str, tmp_path: Path, entity: str) -> None:
    client = MlflowClient(mlflow_store)
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    (result,) = find_runs(mlflow_store, recorded)
    if entity == "run":
        client.delete_run(result.info.run_id)
    else:
        client.delete_experiment(result.info.experiment_id)
    (pending,) = sync(recorded.directory)
    assert "was deleted" in (pending.reason or "")
    if entity == "run":
        client.restore_run(result.info.run_id)
    else:
        client.restore_experiment(result.info.experiment_id)
    assert sync(recorded.directory) == []
    assert read_points(mlflow_store, result) == {"loss": [(1, 1.0)]}


def test_emptied_store_receives_run_again(mlflow_store: str, mlflow_template: Path, tmp_path: Path) -> None:
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    (tmp_path / "new").mkdir()
    copy_store(mlflow_template, tmp_path / "new").replace(tmp_path / "mlflow" / "mlflow.db")
    # MLflow keeps the old file open in this process, so a new one delivers and reads.
    subprocess.run([sys.executable, "-m", "pte_tracking._cli", "sync", recorded.directory], check=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as database:
        assert database.execute("SELECT key, value, step FROM metrics").fetchall() == [("loss", 1.0, 1)]


def test_status_that_another_program_changed_is_repaired(mlflow_store: str, tmp_path: Path) -> None:
    recorded = deliver_run(tmp_path / "run", MLflowSink(mlflow_store))
    (result,) = find_runs(mlflow_store, recorded)
    client = MlflowClient(mlflow_store)
    client.set_terminated(result.info.run_id, "KILLED")
    assert sync(recorded.directory) == []
    assert client.get_run(result.info.run_id).info.status == "FINISHED"


def test_store_replaced_while_it_is_open_receives_run_again(mlflow_store: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))
    recorded.log(1, {"loss": 1.0})
    recorded.deliver()
    (tmp_path / "mlflow" / "mlflow.db").unlink()
    recorded.log(2, {"loss": 2.0})
    with pytest.raises(MlflowException, match="readonly"):
        recorded.deliver()
    recorded.crash()
    recorded.end()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as database:
        assert database.execute("SELECT value, step FROM metrics").fetchall() == [(1.0, 1), (2.0, 2)]
        assert database.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
