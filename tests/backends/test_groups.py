"""Groups of runs in the backends."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from wandb.proto import wandb_internal_pb2 as pb

from pte_backends.aim import AimSink
from pte_backends.clearml import ClearMLSink
from pte_backends.mlflow import MLflowSink, _groups, _store_lock
from pte_backends.swanlab import SwanLabSink
from pte_backends.trackio import TrackioSink
from pte_backends.wandb import WandbSink, _framing
from pte_tracking.sinks import Sink
from pte_tracking.testing import RecordedRun
from tests.backends.aim_runs import read_run
from tests.backends.clearml_sessions import read_task
from tests.backends.simultaneous import deliver_at_once
from tests.backends.swanlab_files import read_records

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # raised inside MLflow
]
RUNS = 8
ODD_NAME = "a 'b' \"c\" \\ % `d` \0 ü/=\n" + "x" * 300


def record(directory: Path, sink: Sink, group: str | None) -> RecordedRun:
    recorded = RecordedRun(directory, sink)
    recorded.manifest = msgspec.structs.replace(recorded.manifest, group=group)
    recorded.manifest.save(directory)
    return recorded


def find_families(uri: str, experiment: str) -> tuple[list[Run], list[Run]]:
    """Return the parents and the children of an experiment."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return (
        [run for run in runs if _groups.GROUP_TAG in run.data.tags],
        [run for run in runs if _groups.GROUP_TAG not in run.data.tags],
    )


def parents_of(runs: Sequence[Run]) -> list[str | None]:
    return [run.data.tags.get("mlflow.parentRunId") for run in runs]


def check_family(uri: str, experiment: str, children: int, name: str) -> None:
    (parent,), runs = find_families(uri, experiment)
    assert (parent.info.run_name, parent.info.status) == (name, "FINISHED")
    assert parents_of(runs) == [parent.info.run_id] * children
    assert not parents_of([parent])[0]
    assert parent.data.tags["mlflow.note.content"].startswith("Parent of all runs of the group `")


@pytest.mark.slow
def test_runs_of_group_starting_at_once_on_server_have_one_parent(mlflow_server: str, tmp_path: Path) -> None:
    sink = MLflowSink(mlflow_server, uuid.uuid4().hex)
    deliver_at_once([record(tmp_path / str(number), sink, "sweep") for number in range(RUNS)])
    check_family(mlflow_server, sink.experiment or "", RUNS, "sweep")


@pytest.mark.slow
def test_runs_of_group_starting_at_once_in_sqlite_have_one_parent(mlflow_store: str, tmp_path: Path) -> None:
    sink = MLflowSink(mlflow_store, "sweeps")
    recorded = [record(tmp_path / str(number), sink, "sweep") for number in range(RUNS)]
    # Without the lock of the threads, the runs are delivered as by several processes.
    with mock.patch.object(_store_lock, "one_thread_at_a_time", return_value=contextlib.nullcontext()):
        deliver_at_once(recorded)
    check_family(mlflow_store, "sweeps", RUNS, "sweep")


@pytest.mark.parametrize("digit", ["0", "f"], ids=["before", "after"])
def test_parent_created_twice_is_merged(digit: str, mlflow_store: str, tmp_path: Path) -> None:
    """Another process, whose parent is before or after this one in the order, has set its parent for its run."""
    create_parent = _groups._create_parent

    def create_twice(client: MlflowClient, experiment_id: str, *arguments: str) -> None:
        ids = [mock.Mock(hex=character * 32) for character in (digit, "1", "8")]
        with mock.patch("mlflow.store.tracking.sqlalchemy_store.uuid.uuid4", side_effect=ids):
            create_parent(client, experiment_id, *arguments)
            client.create_run(experiment_id, tags={"mlflow.parentRunId": digit * 32})
            create_parent(client, experiment_id, *arguments)

    with mock.patch.object(_groups, "_create_parent", create_twice):
        record(tmp_path / "run", MLflowSink(mlflow_store, "sweeps"), "sweep").end()
    (parent,), runs = find_families(mlflow_store, "sweeps")
    assert parent.info.run_id == min(digit, "8") * 32
    assert parents_of(runs) == [parent.info.run_id] * 2


def test_parent_created_during_join_is_found(mlflow_store: str, tmp_path: Path) -> None:
    """Another process creates a parent after the search of this process, and finds its child only then."""
    sink = MLflowSink(mlflow_store, "sweeps")
    set_tag: Callable[..., None] = MlflowClient.set_tag
    started: list[str] = []

    def start_other(client: MlflowClient, run_id: str, key: str, value: str) -> None:
        if key == "mlflow.parentRunId" and not started:
            started.append(value)
            with mock.patch.object(_groups, "_find_parents", _blind_twice(find_parents)):
                record(tmp_path / "other", sink, "sweep").end()
        set_tag(client, run_id, key, value)

    find_parents = _groups._find_parents
    with mock.patch.object(MlflowClient, "set_tag", start_other):
        record(tmp_path / "run", sink, "sweep").end()
    assert started
    check_family(mlflow_store, "sweeps", 2, "sweep")


def _blind_twice(find: Callable[..., list[Run]]) -> Callable[..., list[Run]]:
    calls = iter(range(100))
    return lambda *arguments: [] if next(calls) < 2 else find(*arguments)


def test_group_name_with_odd_characters_has_own_parent(mlflow_store: str, tmp_path: Path) -> None:
    sink = MLflowSink(mlflow_store, "sweeps")
    names = [ODD_NAME, ODD_NAME, f"{ODD_NAME}!", None]
    for number, name in enumerate(names):
        record(tmp_path / str(number), sink, name).end()
    parents, runs = find_families(mlflow_store, "sweeps")
    assert len(parents) == 2
    found = parents_of(runs)
    assert sorted(map(found.count, {*found} - {None})) == [1, 2]
    assert found.count(None) == 1


def test_run_that_continues_keeps_its_parent(mlflow_store: str, tmp_path: Path) -> None:
    sink = MLflowSink(mlflow_store, "sweeps", on_rewind="fork")
    recorded = record(tmp_path / "run", sink, "sweep")
    position = recorded.log(1, {"loss": 1.0})
    recorded.log(2, {"loss": 2.0})
    recorded.deliver()
    recorded.journal.rewind(position, 1)
    recorded.log(2, {"loss": 3.0})
    recorded.end()
    (parent,), runs = find_families(mlflow_store, "sweeps")
    newest = next(run for run in runs if run.info.status == "FINISHED")
    (superseded,) = [run for run in runs if run is not newest]
    assert parents_of([newest, superseded]) == [parent.info.run_id, newest.info.run_id]


def test_deleted_parent_is_created_for_next_run(mlflow_store: str, tmp_path: Path) -> None:
    sink = MLflowSink(mlflow_store, "sweeps")
    record(tmp_path / "0", sink, "sweep").end()
    (first,), _ = find_families(mlflow_store, "sweeps")
    MlflowClient(mlflow_store).delete_run(first.info.run_id)
    record(tmp_path / "1", sink, "sweep").end()
    (second,), runs = find_families(mlflow_store, "sweeps")
    assert sorted(map(str, parents_of(runs))) == sorted([first.info.run_id, second.info.run_id])


def test_wandb_file_contains_group(tmp_path: Path) -> None:
    recorded = record(tmp_path / "run", WandbSink(project="p"), ODD_NAME)
    recorded.end()
    (file,) = recorded.directory.glob("wandb/*/*.wandb")
    records = [pb.Record.FromString(raw) for raw in _framing.parse(file.read_bytes())]
    assert [found.run.run_group for found in records if found.WhichOneof("record_type") == "run"] == [ODD_NAME]


def test_swanlab_file_contains_group(tmp_path: Path) -> None:
    recorded = record(tmp_path / "run", SwanLabSink("p"), "sweep")
    recorded.end()
    assert [found.start.group for found in read_records(recorded.directory) if found.HasField("start")] == ["sweep"]


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # raised when ClearML is imported
def test_clearml_task_has_tag_of_group(tmp_path: Path) -> None:
    recorded = record(tmp_path / "run", ClearMLSink("p"), "sweep")
    recorded.end()
    assert read_task(recorded.directory).tags == ["group: sweep", "FINISHED"]


def test_aim_run_has_group_among_its_parameters(aim_repository: str, tmp_path: Path) -> None:
    recorded = record(tmp_path / "run", AimSink(aim_repository), ODD_NAME)
    recorded.end()
    assert read_run(aim_repository, recorded.directory)["origin", "group"] == ODD_NAME


def test_trackio_configuration_contains_group(tmp_path: Path) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    recorded = record(tmp_path / "run", TrackioSink(project="groups"), ODD_NAME)
    recorded.end()
    config = SQLiteStorage.get_run_config("groups", recorded.manifest.name, run_id=recorded.manifest.id)
    assert config is not None
    assert config["_Group"] == ODD_NAME
