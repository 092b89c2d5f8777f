"""Uploads and names that MLflow or its artifact store refuses, permanently or for a time."""

from __future__ import annotations

import errno
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pte_backends.mlflow import MLflowSink, _errors
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store import events
from pte_tracking.sinks import checkpoint_digest
from pte_tracking.testing import RecordedRun
from tests.backends.test_mlflow import append_event, find_run, read_points
from tests.servers import free_port

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]


class ArtifactStore:
    """HTTP artifact store that answers with a chosen status and counts the uploads."""

    def __init__(self) -> None:
        self.status = 200
        self.uploads: list[str] = []
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                store.uploads.append(self.path)
                self.send_response(store.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}/artifacts"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def artifact_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = ArtifactStore()
    yield store
    store.server.shutdown()
    store.server.server_close()


def start_run(uri: str, folder: Path, artifacts: str) -> RecordedRun:
    MlflowClient(uri).create_experiment("mine", artifact_location=artifacts)
    return RecordedRun(folder / "run", MLflowSink(uri, "mine"))


def log_files(recorded: RecordedRun) -> None:
    """Log one event of each kind that is stored as a file."""
    (recorded.directory / "picture.png").write_bytes(b"a picture")
    (recorded.directory / "folder").mkdir()
    (recorded.directory / "folder" / "file").write_text("a file")
    append_event(recorded, events.Figure, "figure", 1, "picture.png")
    append_event(recorded, events.Image, "image", 1, "picture.png")
    append_event(recorded, events.Text, "text", 1, "a text")
    append_event(recorded, events.Artifact, "picture.png", "")
    append_event(recorded, events.Artifact, "folder", "")
    append_event(recorded, events.Params, {"long": "x" * 7000, "short": 1})


def load_cursor(recorded: RecordedRun) -> Cursor:
    return Cursor.load(recorded.directory, "mlflow")


@pytest.mark.parametrize("status", [400, 413])
def test_permanently_refused_uploads_are_rejected_and_rest_is_delivered(
    mlflow_store: str, tmp_path: Path, artifact_store: ArtifactStore, status: int
) -> None:
    artifact_store.status = status
    recorded = start_run(mlflow_store, tmp_path, artifact_store.uri)
    log_files(recorded)
    recorded.log(1, {"a": 1.0})
    recorded.end()
    result = find_run(mlflow_store, recorded)
    assert sorted(load_cursor(recorded).rejected) == ["2", "3", "4", "5", "6", "7"]
    assert read_points(mlflow_store, result) == {"a": [(1, 1.0)]}
    assert result.data.params["short"] == "1"
    assert result.info.status == "FINISHED"
    assert backlog(recorded.directory, recorded.manifest) == []


@pytest.mark.parametrize("status", [403, 404, 503])
def test_uploads_refused_for_a_time_wait_while_metrics_pass(
    mlflow_store: str, tmp_path: Path, artifact_store: ArtifactStore, status: int
) -> None:
    artifact_store.status = status
    recorded = start_run(mlflow_store, tmp_path, artifact_store.uri)
    log_files(recorded)
    recorded.log(1, {"a": 1.0})
    recorded.end()
    result = find_run(mlflow_store, recorded)
    assert read_points(mlflow_store, result) == {"a": [(1, 1.0)]}
    assert result.info.status == "FINISHED"
    cursor = load_cursor(recorded)
    assert sorted(cursor.postponed) == ["2", "3", "4", "5", "6", "7"]
    assert cursor.error_kind == ("auth" if status == 403 else "other")
    assert len(artifact_store.uploads) == 2  # The first file, and the text of the parameter.
    (pending,) = backlog(recorded.directory, recorded.manifest)
    assert pending.events == 6
    artifact_store.status = 200
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert consumer.retry_postponed(60)
    assert backlog(recorded.directory, recorded.manifest) == []
    assert any(path.endswith("/params/long.txt") for path in artifact_store.uploads)
    assert any(path.endswith("/figures/figure.png") for path in artifact_store.uploads)


def test_unreachable_artifact_store_postpones_checkpoint_until_it_is_pruned(
    mlflow_store: str, tmp_path: Path, artifact_store: ArtifactStore
) -> None:
    artifact_store.server.shutdown()
    artifact_store.server.server_close()
    recorded = start_run(mlflow_store, tmp_path, artifact_store.uri)
    append_event(recorded, events.Text, "text", 1, "a text")
    append_event(recorded, events.CheckpointRemoved, "snapshot_iter_1", 1)
    recorded.log(1, {"a": 1.0})
    recorded.end()
    assert sorted(load_cursor(recorded).postponed) == ["2", "3"]
    assert read_points(mlflow_store, find_run(mlflow_store, recorded)) == {"a": [(1, 1.0)]}


def test_unreachable_server_is_named_with_the_reason_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError) as caught, _errors.translate_auth_errors(uri):
        MlflowClient(uri).get_experiment("0")
    refusal = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    assert str(caught.value) == f"{uri} is not reachable: {refusal}"


def test_tag_whose_text_is_not_stored_is_rejected(
    mlflow_store: str, tmp_path: Path, artifact_store: ArtifactStore
) -> None:
    artifact_store.status = 503
    recorded = start_run(mlflow_store, tmp_path, artifact_store.uri)
    append_event(recorded, events.Tags, {"note": "y" * 9000})
    append_event(recorded, events.Tags, {"note": "short"})
    recorded.end()
    assert list(load_cursor(recorded).rejected) == ["2"]
    assert find_run(mlflow_store, recorded).data.tags["note"] == "short"


def test_unwritable_artifact_directory_rejects_files_only(mlflow_store: str, tmp_path: Path) -> None:
    (tmp_path / "blocked").touch()
    recorded = start_run(mlflow_store, tmp_path, f"file://{tmp_path}/blocked/artifacts")
    log_files(recorded)
    recorded.log(1, {"a": 1.0})
    recorded.end()
    assert len(load_cursor(recorded).rejected) == 6
    assert find_run(mlflow_store, recorded).info.status == "FINISHED"


def test_artifact_below_file_of_its_name_is_rejected(mlflow_store: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))
    (recorded.directory / "a").write_text("a file")
    append_event(recorded, events.Artifact, "a", "")
    append_event(recorded, events.Artifact, "a", "a/b")
    recorded.log(1, {"a": 1.0})
    recorded.end()
    assert list(load_cursor(recorded).rejected) == ["3"]
    assert read_points(mlflow_store, find_run(mlflow_store, recorded)) == {"a": [(1, 1.0)]}


@pytest.mark.filterwarnings("ignore:The filesystem tracking backend:FutureWarning")  # Raised by MLflow.
def test_file_store_renames_keys_below_other_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/store"
    recorded = RecordedRun(tmp_path / "run", MLflowSink(uri))
    append_event(recorded, events.Params, {"model/depth": 18, "model": "resnet", "lr": 0.1})
    append_event(recorded, events.Tags, {"data": "a", "data/name": "b"})
    for step in (1, 2):
        recorded.log(step, {"loss": 1.0, "loss/train": 2.0, "lr": 0.1})
        recorded.deliver()
    recorded.end()
    result = find_run(uri, recorded)
    values = {"loss": 1.0, "loss_train": 2.0, "lr": 0.1}
    assert read_points(uri, result) == {key: [(1, value), (2, value)] for key, value in values.items()}
    assert result.data.params.keys() == {"model/depth", "model-9372c470", "lr"}
    assert (result.data.tags["data"], result.data.tags["data_name"]) == ("a", "b")
    assert "key 'loss/train' is delivered as 'loss_train'" in caplog.text
    assert load_cursor(recorded).rejected == {}


@pytest.mark.filterwarnings("ignore:The filesystem tracking backend:FutureWarning")  # Raised by MLflow.
def test_name_that_file_store_cannot_hold_is_rejected_without_repeating_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file name has at most 255 bytes, and a key of 200 characters can have more."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/store"
    recorded = RecordedRun(tmp_path / "run", MLflowSink(uri))
    for step in range(1, 6):
        recorded.log(step, {"loss": float(step)} | ({"ä" * 200: 1.0} if step == 3 else {}))
    recorded.end()
    assert len(load_cursor(recorded).rejected) == 1
    assert read_points(uri, find_run(uri, recorded))["loss"] == [(step, float(step)) for step in range(1, 6)]


def test_keys_that_mlflow_cannot_hold_stay_readable_and_distinct(mlflow_store: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))
    recorded.log(1, {"D(x)": 1.0, "D[x]": 2.0, "D(G(z))": 3.0})
    recorded.crash()  # A new process finds the names in the state of the sink.
    recorded.log(2, {"D[x]": 4.0, "D(x)": 5.0})
    recorded.end()
    assert read_points(mlflow_store, find_run(mlflow_store, recorded)) == {
        "D_x_": [(1, 1.0), (2, 5.0)],
        "D_x_-64a35fb3": [(1, 2.0), (2, 4.0)],
        "D_G_z__": [(1, 3.0)],
    }


def test_postponed_figure_does_not_replace_newer_one(
    mlflow_store: str, tmp_path: Path, artifact_store: ArtifactStore
) -> None:
    recorded = start_run(mlflow_store, tmp_path, artifact_store.uri)
    artifact_store.status = 503
    for step in (1, 2):
        (recorded.directory / f"{step}.png").write_text(f"step {step}")
        append_event(recorded, events.Figure, "figure", step, f"{step}.png")
        recorded.deliver()
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert list(consumer.cursor.postponed) == ["2", "3"]
    consumer.cursor.postponed["2"] = consumer.cursor.postponed.pop("2")  # As after another failure of the first figure.
    artifact_store.status = 200
    artifact_store.uploads.clear()
    assert consumer.retry_postponed(60)
    assert [path.rpartition("/")[2] for path in artifact_store.uploads if "/figures/" in path] == ["figure.png"]


def test_resume_without_artifact_store_shows_end_of_run(
    mlflow_store: str, tmp_path: Path, artifact_store: ArtifactStore
) -> None:
    recorded = start_run(mlflow_store, tmp_path, artifact_store.uri)
    snapshot = recorded.directory / "snapshot_iter_1"
    snapshot.write_bytes(b"a state")
    digest = checkpoint_digest(snapshot)
    append_event(recorded, events.Checkpoint, "snapshot_iter_1", 1, digest.sha256, digest.size)
    recorded.deliver()
    artifact_store.status = 503
    append_event(recorded, events.RunStarted, recorded.manifest.id, "again", 1, "host", True)
    recorded.end()
    assert find_run(mlflow_store, recorded).info.status == "FINISHED"
    assert backlog(recorded.directory, recorded.manifest) == []
