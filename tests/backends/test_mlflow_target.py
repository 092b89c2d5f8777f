"""Resolution of the MLflow target from arguments, environment, and an imported mlflow."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pte_backends.mlflow import MLflowSink, _tracking_uri
from pte_backends.mlflow._client import upload_timeout
from pte_backends.mlflow._store_lock import open_store
from pte_tracking._delivery.sink_entries import build_sink, merge_sink_entries
from pte_tracking._store import events
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking.testing import RecordedRun

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]


@pytest.fixture(autouse=True)
def _reset_tracking_uri() -> None:
    mlflow.set_tracking_uri(None)


def test_resolve_does_not_import_mlflow() -> None:
    code = (
        "import sys, pte_backends.mlflow; pte_backends.mlflow.MLflowSink().resolve(); sys.exit('mlflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_resolve_default_uri_matches_mlflow(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    os.chdir(tmp_path / "a b")
    assert MLflowSink().resolve().tracking_uri == mlflow.get_tracking_uri()
    assert mlflow.get_tracking_uri().startswith("sqlite:////")
    meta = Path("mlruns", "0", "meta.yaml")
    meta.parent.mkdir(parents=True)
    meta.touch()
    assert MLflowSink().resolve().tracking_uri == mlflow.get_tracking_uri()
    assert mlflow.get_tracking_uri().startswith("file:///")


def test_resolve_uri_prefers_argument_then_script_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert MLflowSink().resolve().tracking_uri == "http://environment"
    mlflow.set_tracking_uri("http://script")
    assert MLflowSink().resolve().tracking_uri == "http://script"
    assert MLflowSink("http://argument").resolve().tracking_uri == "http://argument"


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("sqlite:///x.db", "sqlite:///{cwd}/x.db"),
        ("sqlite:///./sub/x.db", "sqlite:///{cwd}/sub/x.db"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("mlruns", "file://{cwd}/mlruns"),
        ("./mlruns", "file://{cwd}/mlruns"),
        ("file:mlruns", "file://{cwd}/mlruns"),
        ("file:///abs", "file:///abs"),
        ("/abs/mlruns", "file:///abs/mlruns"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("http://host:5000/base", "http://host:5000/base"),
    ],
)
def test_resolve_relative_uri_becomes_absolute(given: str, result: str, tmp_path: Path) -> None:
    expected = result.format(cwd=tmp_path)
    resolved = MLflowSink(given).resolve()
    assert resolved.tracking_uri == expected
    assert resolved.resolve() == resolved


@pytest.mark.parametrize(
    ("uri", "stripped"),
    [
        ("http://me:s3cret@host:5000/p", "http://host:5000/p"),
        ("https://me@host", "https://host"),
        ("postgresql+psycopg2://me:s3cret@host/db?sslmode=on", "postgresql+psycopg2://host/db?sslmode=on"),
        ("postgresql://host/db?user=me&password=s3cret&x=1", "postgresql://host/db?x=1"),
        ("https://host/?access_token=s3cret", "https://host/"),
    ],
)
def test_secrets_in_uri_reach_connection_but_not_manifest(
    uri: str, stripped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_manifest(sink: MLflowSink, directory: Path) -> str:
        directory.mkdir()
        Manifest("id", "name", 0.0, merge_sink_entries([sink])).save(directory)
        return (directory / "run.json").read_text()

    given = save_manifest(MLflowSink(uri), tmp_path / "given")
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    from_environment = save_manifest(MLflowSink(), tmp_path / "environment")
    assert "s3cret" not in given + from_environment
    assert MLflowSink(uri).tracking_uri == stripped
    assert _tracking_uri.resolve(None) == stripped
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    used = _tracking_uri.restore_credentials(stripped)
    if uri.startswith("http://me:"):
        assert (used, os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == (
            stripped,
            "me",
            "s3cret",
        )
    elif uri.startswith("postgresql"):
        assert used == uri


def test_resolve_reads_experiment_and_run_name_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_RUN_NAME", "called so")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    result = MLflowSink().resolve()
    assert (result.experiment, result.experiment_id, result.run_name) == ("by name", None, "called so")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert MLflowSink().resolve().experiment_id == "7"
    given = MLflowSink(experiment="given", run_name="mine").resolve()
    assert (given.experiment, given.experiment_id, given.run_name) == ("given", None, "mine")


def test_default_sink_delivers_to_store_in_working_directory(tmp_path: Path, mlflow_template: Path) -> None:
    from tests.servers import copy_store

    copy_store(mlflow_template, tmp_path)
    recorded = RecordedRun(tmp_path / "run", MLflowSink())
    recorded.log(1, {"a": 1.0})
    recorded.end()
    (result,) = MlflowClient().search_runs(["0"])
    assert result.info.run_name == recorded.manifest.name


def test_named_experiment_is_created_once_and_reused(mlflow_store: str, tmp_path: Path) -> None:
    for name in "ab":
        RecordedRun(tmp_path / name, MLflowSink(mlflow_store, "mine", f"run {name}")).end()
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("mine")
    result = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in result} == {"run a", "run b"}


def test_run_id_from_environment_is_continued_and_ended(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(mlflow_store)
    run = client.create_run(client.create_experiment("elsewhere"), run_name="theirs")
    client.set_terminated(run.info.run_id, "KILLED")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    assert client.get_run(run.info.run_id).info.status == "RUNNING"
    recorded.end()
    result = client.get_run(run.info.run_id)
    assert (result.info.status, result.info.run_name, result.data.metrics) == ("FINISHED", "theirs", {"a": 1.0})
    assert not client.search_runs(["0"])


def test_active_run_of_script_is_joined_and_left_open(mlflow_store: str, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as active:
        mlflow.log_param("lr", 1)
        recorded = RecordedRun(tmp_path / "run", MLflowSink())
        recorded.log(1, {"a": 1.0})
        recorded.end()
        client = MlflowClient(mlflow_store)
        assert client.get_run(active.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("theirs", 2.0)
    result = client.get_run(active.info.run_id)
    assert (result.info.status, result.data.metrics) == ("FINISHED", {"a": 1.0, "theirs": 2.0})
    assert len(client.search_runs(["0"])) == 1


def test_active_run_of_other_store_is_not_joined(mlflow_store: str, tmp_path: Path, mlflow_template: Path) -> None:
    from tests.servers import copy_store

    mlflow.set_tracking_uri(mlflow_store)
    other = f"sqlite:///{copy_store(mlflow_template, tmp_path)}"
    with mlflow.start_run():
        assert MLflowSink(other).resolve().run_id is None


def test_active_model_of_script_receives_no_metrics(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(mlflow_store)
    model = client.create_logged_model("0", "theirs")
    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", model.model_id)
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))
    recorded.log(1, {"a": 1.0})
    recorded.end()
    assert not client.get_logged_model(model.model_id).metrics


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"on_rewind": "forget"}, ValueError, "on_rewind.*forget"),
        ({"tracking_uri": Path("x")}, TypeError, "tracking_uri.*PosixPath"),
        ({"experiment": 7}, TypeError, "experiment.*7"),
    ],
)
def test_sink_invalid_argument_raises_at_construction(arguments: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        MLflowSink(**arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_new_store_keeps_artifacts_where_run_starts(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    recorded = RecordedRun(tmp_path / "run", MLflowSink())
    recorded.journal.append(events.Text, "note", 1, "a text")
    code = "import sys, pathlib; from pte_tracking._delivery.delivery_loop import deliver; "
    code += "deliver(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(recorded.directory)]
    completed = subprocess.run(command, check=True, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert (tmp_path / "mlflow.db").exists()
    (text,) = (tmp_path / "mlruns").rglob("step_1.md")
    assert text.read_text() == "a text"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert completed.stdout + completed.stderr == f"mlflow: creating the database {tmp_path}/mlflow.db\n"


@pytest.mark.slow
def test_stores_delivered_by_one_process_keep_separate_artifacts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.chdir(tmp_path / name)
        recorded = RecordedRun(tmp_path / "runs" / name, MLflowSink())
        recorded.journal.append(events.Text, "note", 1, name)
    code = "import sys, pathlib; from pte_tracking._delivery.delivery_loop import deliver; "
    code += "[deliver(pathlib.Path(argument)) for argument in sys.argv[1:]]"
    folders = [str(tmp_path / "runs" / name) for name in ("a", "b")]
    subprocess.run([sys.executable, "-c", code, *folders], check=True, cwd=tmp_path)
    for name in ("a", "b"):
        (text,) = (tmp_path / name / "mlruns").rglob("step_1.md")
        assert text.read_text() == name


@pytest.mark.parametrize("before", [None, "30"])
def test_upload_timeout_overlapping_contexts_restore_environment(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(name, before)
    with contextlib.ExitStack() as large, contextlib.ExitStack() as small:
        large.enter_context(upload_timeout(10**9))
        small.enter_context(upload_timeout(0))
        assert os.environ[name] == "260"
        large.close()  # The context that was entered first is left first.
        assert os.environ[name] == "60"
        small.close()
        assert os.environ.get(name) == before


_TRAIN = """if True:
    import sys, time
    from pathlib import Path
    import pte_backends.mlflow._connection  # The import takes seconds.
    from pte_backends.mlflow import MLflowSink
    from pte_tracking.testing import RecordedRun

    directory = Path(sys.argv[1])
    recorded = RecordedRun(directory, MLflowSink("sqlite:///one.db"))
    recorded.log(1, {"a": 1.0})
    print("ready", flush=True)
    sys.stdin.readline()
    recorded.end()
"""


@pytest.mark.slow
def test_runs_starting_together_create_one_store(tmp_path: Path) -> None:
    """Without a lock, the first runs of a sweep leave a store that MLflow cannot open."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _TRAIN, str(tmp_path / str(number))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    assert [run.stdout.readline() for run in runs if run.stdout] == ["ready\n"] * 4
    for run in runs:
        assert run.stdin
        run.stdin.write("\n")
        run.stdin.flush()
    for run in runs:
        run.communicate(timeout=120)
    assert [run.returncode for run in runs] == [0] * 4
    assert [run.info.status for run in MlflowClient("sqlite:///one.db").search_runs(["0"])] == ["FINISHED"] * 4


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_credentials_are_sent_only_to_named_server(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://own.example")
    monkeypatch.setenv(variable, "s3cret")
    _tracking_uri.check_credentials("https://own.example:443/path")
    _tracking_uri.check_credentials("sqlite:////tmp/m.db")
    for uri in ("https://other.example", "http://own.example", "https://own.example:8443", "https://own.example.org"):
        with pytest.raises(PermissionError, match=f"were not sent to {uri}, because only the files .* name"):
            _tracking_uri.check_credentials(uri)
    monkeypatch.delenv(variable)
    _tracking_uri.check_credentials("https://other.example")
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").touch()
    with pytest.raises(PermissionError):
        _tracking_uri.check_credentials("https://other.example")


def test_server_of_configured_sink_is_named_and_recorded_one_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), "MLFLOW_TRACKING_TOKEN": "s3cret"})
    entries = [SinkEntry("mlflow", "mlflow", {"tracking_uri": "http://recorded"}, {"tracking_uri": "http://recorded"})]
    build_sink(entries[0])
    with pytest.raises(PermissionError):
        _tracking_uri.check_credentials("http://recorded")
    merge_sink_entries([MLflowSink("http://configured")], entries)
    _tracking_uri.check_credentials("http://configured")
    with pytest.raises(PermissionError):
        _tracking_uri.check_credentials("http://recorded")


def test_creation_of_a_database_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")
    path = tmp_path / "mlflow.db"
    for _ in range(2):
        with open_store(f"sqlite:///{path}"):
            path.touch()
    assert caplog.messages == [f"mlflow: creating the database {path}"]
