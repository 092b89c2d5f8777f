"""Snapshots as logged models: upload, pruning, and download with the journal."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pte_backends.mlflow import MLflowSink, _checkpoints
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import events
from pte_tracking._store.journal import Journal
from pte_tracking.testing import RecordedRun
from tests.backends.logged_models import (
    checkpoint_end,
    download_to,
    find_models,
    find_run,
    log_snapshot,
    position_after,
    prune_snapshot,
    read_artifacts,
    read_points,
    recorded_bytes,
    resume_run,
)

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]


@pytest.fixture(params=["store", pytest.param("server", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"mlflow_{request.param}")


@pytest.fixture
def recorded(uri: str, tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", MLflowSink(uri, tmp_path.name))


def test_snapshot_becomes_logged_model_of_run(uri: str, recorded: RecordedRun, tmp_path: Path) -> None:
    recorded.log(1, {"val/loss": 5.0})
    log_snapshot(recorded, 2, alone=3.0, odd=math.nan)
    recorded.log(3, {"val/loss": 7.0})
    recorded.end()
    run, model = find_run(uri, recorded), find_models(uri, recorded)["snapshot_iter_2"]
    assert (model.name, model.status, model.source_run_id) == ("snapshot_iter_2", "READY", run.info.run_id)
    assert model.tags["mlflow.note.content"].startswith(
        f"Snapshot of run `{recorded.manifest.name}` after iteration 2 (epoch 0.2)."
    )
    assert model.params == {"step": "2", "epoch": "0.2", "size": str(len(b"the state after step 2"))}
    assert read_artifacts(uri, model, tmp_path) == {"snapshot_iter_2": b"the state after step 2"}
    assert [(item.key, item.step, item.value) for item in model.metrics] == [("val/loss", 2, 0.5)]
    assert (model.tags["pte.value.alone"], model.tags["pte.value.odd"]) == ("3.0", "nan")
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(model.model_id, 2)]
    assert read_points(uri, run) == {"val/loss": [(1, 5.0), (2, 0.5), (3, 7.0)]}


def test_late_snapshot_has_metrics_of_its_step(uri: str, recorded: RecordedRun) -> None:
    for step in range(1, 4):
        recorded.log(step, {"a": float(step)})
    recorded.deliver()
    recorded.crash()  # A new connection has an empty metric cache.
    (recorded.directory / "late").write_bytes(b"state")
    digest = hashlib.sha256(b"state").hexdigest()
    recorded.journal.append(events.Checkpoint, "late", 2, digest, 5, None, {"a": 2.5})
    recorded.end()
    assert [(item.key, item.step, item.value) for item in find_models(uri, recorded)["late"].metrics] == [("a", 2, 2.0)]
    assert read_points(uri, find_run(uri, recorded)) == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_snapshot_delivered_twice_is_one_model(uri: str, recorded: RecordedRun, tmp_path: Path) -> None:
    log_snapshot(recorded, 1)
    recorded.deliver(save_cursor=False)
    first_model = find_models(uri, recorded)["snapshot_iter_1"]
    recorded.end()
    second_model = find_models(uri, recorded)["snapshot_iter_1"]
    assert first_model.model_id == second_model.model_id
    assert len(find_run(uri, recorded).outputs.model_outputs) == 1
    assert read_points(uri, find_run(uri, recorded)) == {"val/loss": [(1, 1.0)]}


@pytest.mark.parametrize(
    "stage", ["create", "log_artifact", "_attach_metrics", "_link_to_run", "finalize_logged_model"]
)
def test_interrupted_upload_is_completed(
    uri: str, recorded: RecordedRun, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_snapshot(recorded, 1)

    def stop(*_: object, **__: object) -> None:
        raise ConnectionError(stage)

    with monkeypatch.context() as patched:
        if stage == "create":
            patched.setattr(MlflowClient, "create_logged_model", stop)
        elif stage == "finalize_logged_model":
            patched.setattr(MlflowClient, stage, stop)
        elif stage == "log_artifact":
            patched.setattr(_checkpoints, "open_repository", stop)
        else:
            patched.setattr(_checkpoints.Checkpoints, stage, stop)
        # A failed upload is postponed, and any other failure is retried.
        with contextlib.nullcontext() if stage == "log_artifact" else pytest.raises(ConnectionError):
            recorded.deliver()
        assert {model.status for model in find_models(uri, recorded).values()} <= {"PENDING"}
    recorded.crash()
    recorded.end()
    assert SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0]).retry_postponed(60)
    model = find_models(uri, recorded)["snapshot_iter_1"]
    assert model.status == "READY"
    assert read_artifacts(uri, model, tmp_path) == {"snapshot_iter_1": b"the state after step 1"}
    assert len(find_run(uri, recorded).outputs.model_outputs) == 1


def test_pruned_snapshot_deletes_model_and_artifacts(uri: str, recorded: RecordedRun, tmp_path: Path) -> None:
    for step in (1, 2):
        log_snapshot(recorded, step)
    recorded.deliver()
    pruned_model = find_models(uri, recorded)["snapshot_iter_1"]
    prune_snapshot(recorded, 1)
    recorded.deliver(save_cursor=False)
    recorded.end()
    assert find_models(uri, recorded).keys() == {"snapshot_iter_2"}
    assert _checkpoints.open_repository(MlflowClient(uri), pruned_model).list_artifacts() == []


def test_snapshot_pruned_before_delivery_is_skipped(uri: str, recorded: RecordedRun) -> None:
    log_snapshot(recorded, 1)
    prune_snapshot(recorded, 1)
    log_snapshot(recorded, 2)
    recorded.end()
    assert find_models(uri, recorded).keys() == {"snapshot_iter_2"}
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert consumer.cursor.rejected == {}


def test_snapshot_pruned_during_upload_is_skipped(
    uri: str, recorded: RecordedRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upload = _checkpoints.Checkpoints._upload_files

    def prune_and_upload(self: Any, model: Any, path: Path) -> None:
        if path.name == "snapshot_iter_1":
            path.unlink()
        upload(self, model, path)

    monkeypatch.setattr(_checkpoints.Checkpoints, "_upload_files", prune_and_upload)
    log_snapshot(recorded, 1)
    log_snapshot(recorded, 2)
    recorded.deliver()
    assert find_models(uri, recorded).keys() == {"snapshot_iter_2"}
    assert recorded.rejected_events == {}
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_snapshot_rewritten_after_rewind_replaces_model(uri: str, recorded: RecordedRun, tmp_path: Path) -> None:
    first_position = log_snapshot(recorded, 1)
    log_snapshot(recorded, 2, b"first pass")
    recorded.deliver()
    old = find_models(uri, recorded)["snapshot_iter_2"]
    resume_run(recorded, first_position, 1)
    log_snapshot(recorded, 2, b"second pass")
    recorded.end()
    model = find_models(uri, recorded)["snapshot_iter_2"]
    assert read_artifacts(uri, model, tmp_path) == {"snapshot_iter_2": b"second pass"}
    assert _checkpoints.open_repository(MlflowClient(uri), old).list_artifacts() == []
    assert read_points(uri, find_run(uri, recorded)) == {"val/loss": [(1, 1.0), (2, 0.5)]}


def test_snapshots_with_same_name_keep_only_last_model(uri: str, recorded: RecordedRun, tmp_path: Path) -> None:
    for step, data in [(1, b"first"), (2, b"later")]:
        (recorded.directory / "latest").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        recorded.journal.append(events.Checkpoint, "latest", step, digest, len(data))
    recorded.end()
    model = find_models(uri, recorded)["latest"]
    assert (model.params["step"], read_artifacts(uri, model, tmp_path)) == ("2", {"latest": b"later"})
    assert len(find_run(uri, recorded).outputs.model_outputs) == 1


def test_fork_links_existing_models_to_new_run(uri: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(uri, tmp_path.name, on_rewind="fork"))
    log_snapshot(recorded, 1)
    recorded.log(2, {"val/loss": 2.0})
    recorded.deliver()
    before = find_models(uri, recorded)
    resume_run(recorded, recorded.journal.end._replace(seq=3, position=position_after(recorded, 3)), 1)
    log_snapshot(recorded, 2)
    recorded.end()
    after, run = find_models(uri, recorded), find_run(uri, recorded)
    assert after["snapshot_iter_1"].model_id == before["snapshot_iter_1"].model_id
    assert {output.model_id for output in run.outputs.model_outputs} == {item.model_id for item in after.values()}
    fetched = download_to(uri, f"runs:/{run.info.run_id}", tmp_path)
    assert fetched.name == "snapshot_iter_2"
    assert fetched.with_name("journal.jsonl").read_bytes() == recorded_bytes(recorded)[: checkpoint_end(recorded, 2)]


@pytest.fixture
def trained(uri: str, recorded: RecordedRun) -> RecordedRun:
    for step in range(1, 8):
        if step % 2:
            recorded.log(step, {"val/loss": 1.0 / step})
        else:
            log_snapshot(recorded, step)
            recorded.deliver()
    prune_snapshot(recorded, 4)
    recorded.end()
    return recorded


def test_download_run_fetches_newest_checkpoint_and_journal(uri: str, trained: RecordedRun, tmp_path: Path) -> None:
    result = download_to(uri, f"runs:/{find_run(uri, trained).info.run_id}", tmp_path)
    assert (result.name, result.read_bytes()) == ("snapshot_iter_6", b"the state after step 6")
    journal = result.with_name("journal.jsonl").read_bytes()
    assert journal == recorded_bytes(trained)[: checkpoint_end(trained, 6)]
    assert sorted(path.name for path in result.parent.iterdir()) == ["journal.jsonl", "snapshot_iter_6"]


def test_fetch_does_not_import_mlflow_in_own_process(uri: str, trained: RecordedRun, tmp_path: Path) -> None:
    run_id = find_run(uri, trained).info.run_id
    code = "import sys, pathlib, pte_backends.mlflow; sink = pte_backends.mlflow.MLflowSink(sys.argv[1]); "
    code += "print(sink.fetch(sys.argv[2], pathlib.Path(sys.argv[3])), 'mlflow' in sys.modules)"
    command = [sys.executable, "-c", code, uri, f"runs:/{run_id}", str(tmp_path)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert completed.stdout.split() == [str(tmp_path / "snapshot_iter_6"), "False"]
    with pytest.raises(LookupError, match="runs:/nothing"):
        MLflowSink(uri).fetch("runs:/nothing", tmp_path)


def test_download_model_fetches_given_checkpoint_and_journal(uri: str, trained: RecordedRun, tmp_path: Path) -> None:
    model = find_models(uri, trained)["snapshot_iter_2"]
    result = download_to(uri, f"models:/{model.model_id}", tmp_path)
    assert (result.name, result.read_bytes()) == ("snapshot_iter_2", b"the state after step 2")
    journal = result.with_name("journal.jsonl").read_bytes()
    assert journal == recorded_bytes(trained)[: checkpoint_end(trained, 2)]


def test_download_unusable_checkpoint_is_skipped_or_raises(uri: str, trained: RecordedRun, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    run = find_run(uri, trained)
    tags = {"pte.run_id": trained.manifest.id, "pte.checkpoint": "snapshot_iter_9", "pte.sha256": "x"}
    pending = client.create_logged_model(run.info.experiment_id, "p", run.info.run_id, tags, {"step": "9"})
    damaged = find_models(uri, trained)["snapshot_iter_6"]
    (tmp_path / "snapshot_iter_6").write_bytes(b"the state after step 5")
    _checkpoints.open_repository(client, damaged).log_artifact(str(tmp_path / "snapshot_iter_6"))
    assert download_to(uri, f"runs:/{run.info.run_id}", tmp_path).name == "snapshot_iter_2"
    with pytest.raises(LookupError, match="PENDING"):
        download_to(uri, f"models:/{pending.model_id}", tmp_path)
    with pytest.raises(LookupError, match="damaged"):
        download_to(uri, f"models:/{damaged.model_id}", tmp_path)


def test_download_prefers_effective_over_superseded_checkpoint(uri: str, recorded: RecordedRun, tmp_path: Path) -> None:
    first_position = log_snapshot(recorded, 2)
    log_snapshot(recorded, 4)
    recorded.deliver()
    resume_run(recorded, first_position, 2)
    # The rewind superseded the checkpoint event but not the snapshot, so a resume registers it again.
    data = (recorded.directory / "snapshot_iter_2").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    recorded.journal.append(events.Checkpoint, "snapshot_iter_2", 2, digest, len(data), 0.2, {})
    recorded.deliver()
    assert download_to(uri, f"runs:/{find_run(uri, recorded).info.run_id}", tmp_path).name == "snapshot_iter_2"


@pytest.mark.parametrize(
    "source", ["runs:/0123456789abcdef0123456789abcdef", "models:/m-0123", "models:/name/1", "runs:/"]
)
def test_download_unknown_uri_raises_lookup_error(mlflow_store: str, tmp_path: Path, source: str) -> None:
    with pytest.raises(LookupError, match=source):
        download_to(mlflow_store, source, tmp_path)


def test_download_without_own_checkpoint_raises_lookup_error(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    run = client.create_run("0")
    with pytest.raises(LookupError, match="the run has no checkpoints"):
        download_to(mlflow_store, f"runs:/{run.info.run_id}", tmp_path)
    model = client.create_logged_model("0", "theirs")
    client.finalize_logged_model(model.model_id, "READY")
    with pytest.raises(LookupError, match="not a checkpoint of pte_tracking"):
        download_to(mlflow_store, f"models:/{model.model_id}", tmp_path)


def test_join_overlapping_journal_pieces_stops_at_first_gap(tmp_path: Path) -> None:
    from pte_backends.mlflow._journal import join_pieces

    journal_bytes = bytes(range(100))
    for start, end in [(0, 10), (0, 30), (10, 20), (30, 60), (50, 80), (90, 100)]:
        (tmp_path / f"{start:015d}-{end:015d}.jsonl").write_bytes(journal_bytes[start:end])
    join_pieces(list(tmp_path.iterdir()), tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == journal_bytes[:80]


def test_journal_truncated_and_regrown_is_uploaded_again(uri: str, recorded: RecordedRun, tmp_path: Path) -> None:
    for step in (1, 2):
        log_snapshot(recorded, step)
    recorded.deliver()
    recorded.journal.close()
    os.truncate(recorded.directory / "journal.jsonl", checkpoint_end(recorded, 1))
    recorded.journal = Journal(recorded.directory / "journal.jsonl")
    for step in range(2, 30):
        recorded.log(step, {"other": 1.0})
    log_snapshot(recorded, 30)
    recorded.crash()
    recorded.end()
    result = download_to(uri, f"runs:/{find_run(uri, recorded).info.run_id}", tmp_path)
    assert result.name == "snapshot_iter_30"
    assert result.with_name("journal.jsonl").read_bytes() == recorded_bytes(recorded)[: checkpoint_end(recorded, 30)]
