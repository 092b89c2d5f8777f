"""Local stores that a server has created, whose artifacts only the server can write."""

from __future__ import annotations

import logging
import re
import shlex
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from pte_backends.mlflow import MLflowSink, _errors
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.cursor import Cursor, CursorStore
from pte_tracking._delivery.sync import sync
from pte_tracking._store import events
from pte_tracking.sinks import SinkClosedError, checkpoint_digest
from pte_tracking.testing import RecordedRun
from tests.backends.test_mlflow import find_runs, list_artifacts
from tests.cli.invocation import invoke
from tests.servers import serve

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]

_TRAIN = """if True:
    import sys
    import pte_tracking as pte

    first, last = map(int, sys.argv[1:])
    with pte.Run("result", sinks=["json", "mlflow"], resume=True, close_timeout=60) as run:
        for step in range(first, last):
            run.log_metrics({"loss": 1 / step}, step)
            run.log_text("note", f"text {step}", step)
            with open("weights.bin", "w") as file:
                file.write(f"weights {step}")
            run.log_artifact("weights.bin")
"""


@pytest.fixture
def proxied_store(mlflow_store: str) -> str:
    """Return the URI of a local store whose experiment Default was created by a server."""
    path = mlflow_store.removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    database.close()
    return mlflow_store


def train(folder: Path, first: int, last: int) -> str:
    """Run the training script in a folder, as a user does, and return its messages."""
    command = [sys.executable, "-c", _TRAIN, str(first), str(last)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=200).stderr


def log_files(recorded: RecordedRun, step: int) -> None:
    recorded.log(step, {"loss": 1 / step})
    recorded.journal.append(events.Text, "note", step, f"text {step}")
    snapshot = recorded.directory / f"snapshot_iter_{step}"
    snapshot.write_text(f"state {step}")
    digest = checkpoint_digest(snapshot)
    recorded.journal.append(events.Checkpoint, snapshot.name, step, digest.sha256, digest.size)


def download(server: str, run: Run, path: str) -> str:
    """Download an artifact from the address that MLflow's page uses."""
    query = urllib.parse.urlencode({"run_uuid": run.info.run_id, "path": path})
    with urllib.request.urlopen(f"{server}/get-artifact?{query}", timeout=60) as response:
        return str(response.read().decode())


def experiments(uri: str) -> dict[str, Experiment]:
    return {experiment.name: experiment for experiment in MlflowClient(uri).search_experiments()}


def read_losses(uri: str, run: Run) -> list[tuple[int, float]]:
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
    return sorted((metric.step, metric.value) for metric in history)


def rejected(recorded: RecordedRun) -> dict[str, str]:
    return Cursor.load(recorded.directory, "mlflow").rejected


@pytest.mark.slow
@pytest.mark.parametrize("first", ["server", "training"])
def test_files_of_training_and_resume_are_shown_by_server(first: str, tmp_path: Path) -> None:
    if first == "training":
        train(tmp_path, 1, 3)
    with serve(tmp_path, f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "mlartifacts")) as server:
        is_proxied = experiments(server)["Default"].artifact_location == "mlflow-artifacts:/0"
        assert is_proxied == (first == "server")
        messages = train(tmp_path, 1, 3) if first == "server" else ""
        assert messages.count("the run is created in the new experiment 'Default-local'") == is_proxied
        assert "Not yet delivered" not in messages
        assert "Default-local" not in train(tmp_path, 3, 5)
        name = "Default-local" if is_proxied else "Default"
        (run,) = MlflowClient(server).search_runs([item.experiment_id for item in experiments(server).values()])
        assert run.info.experiment_id == experiments(server)[name].experiment_id
        assert read_losses(server, run) == [(step, 1 / step) for step in range(1, 5)]
        assert [download(server, run, f"text/note/step_{step}.md") for step in (1, 4)] == ["text 1", "text 4"]
        assert download(server, run, "weights.bin") == "weights 4"


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URI of a local store that a server has created, and URI of the server."""
    folder = tmp_path_factory.mktemp("store")
    store = f"sqlite:///{folder}/mlflow.db"
    with serve(folder, store, str(folder / "mlartifacts")) as server:
        MlflowClient(server).create_experiment("made by server")
        yield store, server


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["Default", "made by server", "existing run", "child"])
def test_rejected_files_reach_same_run_with_command_of_message(
    choice: str, shared_store: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, server = shared_store
    sink = MLflowSink(store, choice)
    if choice in ("existing run", "child"):
        tags = {"pte.run_id": "another run"} if choice == "child" else {}
        monkeypatch.setenv("MLFLOW_RUN_ID", MlflowClient(server).create_run("0", tags=tags).info.run_id)
        sink = MLflowSink(store)
    recorded = RecordedRun(tmp_path / "run", sink)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    log_files(recorded, 1)
    recorded.end()
    (run,) = find_runs(server, recorded)
    assert list_artifacts(server, run) == []
    (reason,) = set(rejected(recorded).values())
    command = reason.partition("run: pte-tracking ")[2].partition(". For later runs")[0]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of another training")
    result = invoke(*shlex.split(command.replace("http://HOST:PORT", server)))
    assert result.exit_code == 0, result.output
    assert download(server, run, "text/note/step_1.md") == "text 1"
    # A resume delivers to both sinks, and each data point is stored once.
    recorded.journal.append(events.RunStarted, recorded.manifest.id, "again", 1, "host", True)
    log_files(recorded, 2)
    recorded.journal.append(events.RunEnded, "FINISHED", None)
    assert sync(recorded.directory) == []
    (same_run,) = find_runs(server, recorded)
    assert (same_run.info.run_id, same_run.info.status) == (run.info.run_id, "FINISHED")
    assert read_losses(server, run) == [(1, 1.0), (2, 0.5)]
    assert download(server, run, "text/note/step_2.md") == "text 2"
    client = MlflowClient(server)
    models = [client.get_logged_model(output.model_id) for output in same_run.outputs.model_outputs]
    assert sorted((model.name, model.status) for model in models) == [
        ("snapshot_iter_1", "READY"),
        ("snapshot_iter_2", "READY"),
    ]


def test_run_in_chosen_experiment_rejects_files_once_and_names_remedies(
    proxied_store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = RecordedRun(tmp_path / "a run", MLflowSink(proxied_store, "Default"))
    log_files(recorded, 1)
    recorded.journal.append(events.Params, {"long": "x" * 7000, "short": 1})
    recorded.end()
    (run,) = find_runs(proxied_store, recorded)
    assert (run.info.experiment_id, run.info.status, run.data.params["short"]) == ("0", "FINISHED", "1")
    assert backlog(recorded.directory, recorded.manifest) == []
    assert list(rejected(recorded)) == ["3", "4", "5"]
    (reason,) = set(rejected(recorded).values())
    assert f"pte-tracking sync '{recorded.directory}' --to mlflow --option tracking_uri=http://HOST:PORT " in reason
    assert "set MLFLOW_EXPERIMENT_NAME to a new experiment" in reason
    assert [record.levelno for record in caplog.records if "skipping rejected" in record.getMessage()] == [
        logging.ERROR,
        logging.INFO,
        logging.INFO,
    ]
    assert MlflowClient(proxied_store).search_logged_models(["0"]) == []


def test_postponed_files_of_earlier_version_are_rejected_by_sync(proxied_store: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxied_store, "Default"))
    log_files(recorded, 1)
    recorded.end()
    cursor = Cursor.load(recorded.directory, "mlflow")
    postponed: dict[str, tuple[int, str]] = dict.fromkeys(("3", "4"), (0, "unavailable"))
    cursor.postponed, cursor.rejected = postponed, {}
    CursorStore(recorded.directory, "mlflow").save(cursor)
    start_time = time.monotonic()
    assert sync(recorded.directory) == []
    assert time.monotonic() - start_time < 10
    assert rejected(recorded).keys() == postponed.keys()


def test_run_found_in_default_is_not_moved(proxied_store: str, tmp_path: Path) -> None:
    client = MlflowClient(proxied_store)
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxied_store))
    existing = client.create_run("0", tags={"pte.run_id": recorded.manifest.id})
    log_files(recorded, 1)
    recorded.end()
    (run,) = find_runs(proxied_store, recorded)
    assert run.info.run_id == existing.info.run_id
    assert len(rejected(recorded)) == 2
    assert experiments(proxied_store).keys() == {"Default"}


def test_run_in_replacement_is_found_again_without_state(proxied_store: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxied_store))
    log_files(recorded, 1)
    recorded.deliver(save_cursor=False)
    recorded.end()
    (run,) = find_runs(proxied_store, recorded)
    local = experiments(proxied_store)["Default-local"]
    assert (run.info.experiment_id, local.artifact_location) == (
        local.experiment_id,
        f"{tmp_path}/mlruns/{local.experiment_id}",
    )
    assert rejected(recorded) == {}


def test_unknown_artifact_scheme_rejects_files_only(mlflow_store: str, tmp_path: Path) -> None:
    MlflowClient(mlflow_store).create_experiment("mine", artifact_location="unknown://bucket/artifacts")
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    log_files(recorded, 1)
    recorded.end()
    assert len(rejected(recorded)) == 2
    assert "unknown://bucket/artifacts" in rejected(recorded)["3"]
    assert backlog(recorded.directory, recorded.manifest) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tracking_uri": "htp://host:5000"}, "for htp://host:5000: .*unsupported URI"),
        ({"tracking_uri": "file:///tmp/mlruns"}, "maintenance mode"),
        ({"experiment_id": "digits"}, "Invalid experiment ID 'digits'"),
        ({"run_id": "../digits"}, 'Invalid value "../digits"'),
        ({"experiment": "x" * 501}, "maximum length of 500 characters"),
    ],
)
def test_configuration_that_mlflow_refuses_stops_delivery(
    options: dict[str, str], reason: str, mlflow_store: str, tmp_path: Path
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(**{"tracking_uri": mlflow_store} | options))
    recorded.log(1, {"loss": 1.0})
    recorded.end()
    (pending,) = backlog(recorded.directory, recorded.manifest)
    assert pending.is_closed
    assert re.search(reason, pending.reason)


def test_missing_driver_of_database_stops_delivery() -> None:
    with (
        pytest.raises(SinkClosedError, match="mssql://host/db: No module named 'pyodbc'"),
        _errors.close_on_invalid_configuration("mssql://host/db"),
    ):
        raise ModuleNotFoundError("No module named 'pyodbc'")


def test_refusal_of_a_proxy_does_not_stop_delivery() -> None:
    text = "API request to endpoint /api failed with error code 400 != 200. Response body: ''"
    with pytest.raises(MlflowException), _errors.close_on_invalid_configuration("http://host"):
        raise MlflowException(text, INVALID_PARAMETER_VALUE)
