"""Snapshots are logged models of the run while they exist, and come back from there with the journal up to them."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

from pte_backends.mlflow import MLflowSink, _checkpoints
from pte_backends.mlflow._download import download
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import events
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.journal_reader import read
from pte_tracking.testing import Points, Recorded

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own
]


@pytest.fixture(params=["store", pytest.param("server", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"mlflow_{request.param}")


@pytest.fixture
def recorded(uri: str, tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "run", MLflowSink(uri, tmp_path.name))


def find_run(uri: str, recorded: Recorded) -> Run:
    client = MlflowClient(uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    result = client.search_runs(experiments, f"tags.`pte.run_id` = '{recorded.manifest.id}'")
    (run,) = (run for run in result if "pte.superseded_by" not in run.data.tags)
    return run


def models(uri: str, recorded: Recorded) -> dict[str, LoggedModel]:
    """The run's models by their file."""
    result = MlflowClient(uri).search_logged_models([find_run(uri, recorded).info.experiment_id])
    by_file = {model.tags["pte.checkpoint"]: model for model in result}
    assert len(by_file) == len(result)
    return by_file


def points(uri: str, run: Run) -> Points:
    client = MlflowClient(uri)
    return {
        key: sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def content(uri: str, model: LoggedModel, folder: Path) -> dict[str, bytes]:
    target = folder / f"read-{model.model_id}"
    target.mkdir(exist_ok=True)
    repository = _checkpoints.repository(MlflowClient(uri), model)
    return {
        one.path: Path(repository.download_artifacts(one.path, str(target))).read_bytes()
        for one in repository.list_artifacts()
    }


def snapshot(recorded: Recorded, step: int, data: bytes = b"", **values: float) -> JournalPosition:
    """Log a row and a snapshot of one step; returns the point between them, which a resume goes back to."""
    mark = recorded.log(step, {"val/loss": 1.0 / step})
    data = data or b"the state after step %d" % step
    name = f"snapshot_iter_{step}"
    (recorded.directory / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    values = {"val/loss": 0.99, **values}
    recorded.journal.append(events.Checkpoint, name, step, digest, len(data), step / 10, values)
    return mark


def prune(recorded: Recorded, step: int) -> None:
    (recorded.directory / f"snapshot_iter_{step}").unlink()
    recorded.journal.append(events.CheckpointRemoved, f"snapshot_iter_{step}", step)


def resume(recorded: Recorded, mark: JournalPosition, step: int) -> None:
    recorded.journal.rewind(mark, step)
    manifest = recorded.manifest
    recorded.journal.append(events.RunStarted, manifest.id, manifest.name, 2, "host", True)


def test_snapshot_becomes_logged_model_of_run(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    recorded.log(1, {"val/loss": 5.0})
    snapshot(recorded, 2, alone=3.0, odd=math.nan)
    recorded.log(3, {"val/loss": 7.0})
    recorded.end()
    run, model = find_run(uri, recorded), models(uri, recorded)["snapshot_iter_2"]
    assert (model.name, model.status, model.source_run_id) == ("snapshot_iter_2", "READY", run.info.run_id)
    assert model.params == {"step": "2", "epoch": "0.2", "size": str(len(b"the state after step 2"))}
    assert content(uri, model, tmp_path) == {"snapshot_iter_2": b"the state after step 2"}
    assert [(one.key, one.step, one.value) for one in model.metrics] == [("val/loss", 2, 0.5)]
    assert (model.tags["pte.value.alone"], model.tags["pte.value.odd"]) == ("3.0", "nan")
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(model.model_id, 2)]
    assert points(uri, run) == {"val/loss": [(1, 5.0), (2, 0.5), (3, 7.0)]}


def test_late_snapshot_has_metrics_of_its_step(uri: str, recorded: Recorded) -> None:
    for step in range(1, 4):
        recorded.log(step, {"a": float(step)})
    recorded.deliver()
    recorded._channel = None  # another process: it remembers no points
    (recorded.directory / "late").write_bytes(b"state")
    digest = hashlib.sha256(b"state").hexdigest()
    recorded.journal.append(events.Checkpoint, "late", 2, digest, 5, None, {"a": 2.5})
    recorded.end()
    assert [(one.key, one.step, one.value) for one in models(uri, recorded)["late"].metrics] == [("a", 2, 2.0)]
    assert points(uri, find_run(uri, recorded)) == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_snapshot_delivered_twice_is_one_model(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    snapshot(recorded, 1)
    recorded.deliver(saved=False)
    first = models(uri, recorded)["snapshot_iter_1"]
    recorded.end()
    second = models(uri, recorded)["snapshot_iter_1"]
    assert first.model_id == second.model_id
    assert len(find_run(uri, recorded).outputs.model_outputs) == 1
    assert points(uri, find_run(uri, recorded)) == {"val/loss": [(1, 1.0)]}


@pytest.mark.parametrize("stage", ["create", "log_artifact", "_describe", "_link", "finalize_logged_model"])
def test_interrupted_upload_is_completed(
    uri: str, recorded: Recorded, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(recorded, 1)

    def stop(*_: object, **__: object) -> None:
        raise ConnectionError(stage)

    with monkeypatch.context() as patched:
        if stage == "create":
            patched.setattr(MlflowClient, "create_logged_model", stop)
        elif stage == "finalize_logged_model":
            patched.setattr(MlflowClient, stage, stop)
        elif stage == "log_artifact":
            patched.setattr(_checkpoints, "repository", stop)
        else:
            patched.setattr(_checkpoints.Checkpoints, stage, stop)
        with pytest.raises(ConnectionError):
            recorded.deliver()
        assert {model.status for model in models(uri, recorded).values()} <= {"PENDING"}
    recorded._channel = None
    recorded.end()
    model = models(uri, recorded)["snapshot_iter_1"]
    assert model.status == "READY"
    assert content(uri, model, tmp_path) == {"snapshot_iter_1": b"the state after step 1"}
    assert len(find_run(uri, recorded).outputs.model_outputs) == 1


def test_pruned_snapshot_deletes_model_and_artifacts(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    for step in (1, 2):
        snapshot(recorded, step)
    recorded.deliver()
    pruned_model = models(uri, recorded)["snapshot_iter_1"]
    prune(recorded, 1)
    recorded.deliver(saved=False)
    recorded.end()
    assert models(uri, recorded).keys() == {"snapshot_iter_2"}
    assert _checkpoints.repository(MlflowClient(uri), pruned_model).list_artifacts() == []


def test_snapshot_pruned_before_delivery_is_skipped(uri: str, recorded: Recorded) -> None:
    snapshot(recorded, 1)
    prune(recorded, 1)
    snapshot(recorded, 2)
    recorded.end()
    assert models(uri, recorded).keys() == {"snapshot_iter_2"}
    channel = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert channel.cursor.rejected == {}


def test_snapshot_rewritten_after_rewind_replaces_model(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    first = snapshot(recorded, 1)
    snapshot(recorded, 2, b"first pass")
    recorded.deliver()
    old = models(uri, recorded)["snapshot_iter_2"]
    resume(recorded, first, 1)
    snapshot(recorded, 2, b"second pass")
    recorded.end()
    model = models(uri, recorded)["snapshot_iter_2"]
    assert content(uri, model, tmp_path) == {"snapshot_iter_2": b"second pass"}
    assert _checkpoints.repository(MlflowClient(uri), old).list_artifacts() == []
    assert points(uri, find_run(uri, recorded)) == {"val/loss": [(1, 1.0), (2, 0.5)]}


def test_snapshots_with_same_name_keep_only_last_model(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    for step, data in [(1, b"first"), (2, b"later")]:
        (recorded.directory / "latest").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        recorded.journal.append(events.Checkpoint, "latest", step, digest, len(data))
    recorded.end()
    model = models(uri, recorded)["latest"]
    assert (model.params["step"], content(uri, model, tmp_path)) == ("2", {"latest": b"later"})
    assert len(find_run(uri, recorded).outputs.model_outputs) == 1


def test_fork_links_existing_models_to_new_run(uri: str, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "run", MLflowSink(uri, tmp_path.name, on_rewind="fork"))
    snapshot(recorded, 1)
    recorded.log(2, {"val/loss": 2.0})
    recorded.deliver()
    before = models(uri, recorded)
    resume(recorded, recorded.journal.end._replace(seq=3, position=position_after(recorded, 3)), 1)
    snapshot(recorded, 2)
    recorded.end()
    after, run = models(uri, recorded), find_run(uri, recorded)
    assert after["snapshot_iter_1"].model_id == before["snapshot_iter_1"].model_id
    assert {output.model_id for output in run.outputs.model_outputs} == {one.model_id for one in after.values()}
    fetched = download_in_process(uri, f"runs:/{run.info.run_id}", tmp_path)
    assert fetched.name == "snapshot_iter_2"
    assert fetched.with_name("journal.jsonl").read_bytes() == recorded_bytes(recorded)[: checkpoint_end(recorded, 2)]


def position_after(recorded: Recorded, seq: int) -> int:
    return next(end_position for event, end_position in read(recorded.directory / "journal.jsonl") if event.seq == seq)


def checkpoint_end(recorded: Recorded, step: int) -> int:
    journal = recorded.directory / "journal.jsonl"
    return [
        end_position
        for event, end_position in read(journal)
        if isinstance(event, events.Checkpoint) and event.step == step
    ][-1]


def recorded_bytes(recorded: Recorded) -> bytes:
    return (recorded.directory / "journal.jsonl").read_bytes()


def download_in_process(uri: str, source: str, folder: Path) -> Path:
    """Fetch in this process, which is quicker."""
    target = folder / f"fetched-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    target.mkdir(exist_ok=True)
    return target / download(uri, source, target)


@pytest.fixture
def trained(uri: str, recorded: Recorded) -> Recorded:
    for step in range(1, 8):
        if step % 2:
            recorded.log(step, {"val/loss": 1.0 / step})
        else:
            snapshot(recorded, step)
            recorded.deliver()
    prune(recorded, 4)
    recorded.end()
    return recorded


def test_download_run_fetches_newest_checkpoint_and_journal(uri: str, trained: Recorded, tmp_path: Path) -> None:
    result = download_in_process(uri, f"runs:/{find_run(uri, trained).info.run_id}", tmp_path)
    assert (result.name, result.read_bytes()) == ("snapshot_iter_6", b"the state after step 6")
    journal = result.with_name("journal.jsonl").read_bytes()
    assert journal == recorded_bytes(trained)[: checkpoint_end(trained, 6)]
    assert sorted(path.name for path in result.parent.iterdir()) == ["journal.jsonl", "snapshot_iter_6"]


def test_fetch_does_not_import_mlflow_in_own_process(uri: str, trained: Recorded, tmp_path: Path) -> None:
    run_id = find_run(uri, trained).info.run_id
    code = "import sys, pathlib, pte_backends.mlflow; sink = pte_backends.mlflow.MLflowSink(sys.argv[1]); "
    code += "print(sink.fetch(sys.argv[2], pathlib.Path(sys.argv[3])), 'mlflow' in sys.modules)"
    command = [sys.executable, "-c", code, uri, f"runs:/{run_id}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "snapshot_iter_6"), "False"]
    with pytest.raises(LookupError, match="runs:/nothing"):
        MLflowSink(uri).fetch("runs:/nothing", tmp_path)


def test_download_model_fetches_given_checkpoint_and_journal(uri: str, trained: Recorded, tmp_path: Path) -> None:
    model = models(uri, trained)["snapshot_iter_2"]
    result = download_in_process(uri, f"models:/{model.model_id}", tmp_path)
    assert (result.name, result.read_bytes()) == ("snapshot_iter_2", b"the state after step 2")
    journal = result.with_name("journal.jsonl").read_bytes()
    assert journal == recorded_bytes(trained)[: checkpoint_end(trained, 2)]


def test_download_unusable_checkpoint_is_skipped_or_raises(uri: str, trained: Recorded, tmp_path: Path) -> None:
    client = MlflowClient(uri)
    run = find_run(uri, trained)
    tags = {"pte.run_id": trained.manifest.id, "pte.checkpoint": "snapshot_iter_9", "pte.sha256": "x"}
    pending = client.create_logged_model(run.info.experiment_id, "p", run.info.run_id, tags, {"step": "9"})
    damaged = models(uri, trained)["snapshot_iter_6"]
    (tmp_path / "snapshot_iter_6").write_bytes(b"the state after step 5")
    _checkpoints.repository(client, damaged).log_artifact(str(tmp_path / "snapshot_iter_6"))
    assert download_in_process(uri, f"runs:/{run.info.run_id}", tmp_path).name == "snapshot_iter_2"
    with pytest.raises(LookupError, match="PENDING"):
        download_in_process(uri, f"models:/{pending.model_id}", tmp_path)
    with pytest.raises(LookupError, match="damaged"):
        download_in_process(uri, f"models:/{damaged.model_id}", tmp_path)


def test_download_prefers_effective_over_superseded_checkpoint(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    first = snapshot(recorded, 2)
    snapshot(recorded, 4)
    recorded.deliver()
    resume(recorded, first, 2)
    # The snapshot came before its event was taken back: it is announced again.
    data = (recorded.directory / "snapshot_iter_2").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    recorded.journal.append(events.Checkpoint, "snapshot_iter_2", 2, digest, len(data), 0.2, {})
    recorded.deliver()
    assert download_in_process(uri, f"runs:/{find_run(uri, recorded).info.run_id}", tmp_path).name == "snapshot_iter_2"


@pytest.mark.parametrize(
    "source", ["runs:/0123456789abcdef0123456789abcdef", "models:/m-0123", "models:/name/1", "runs:/"]
)
def test_download_unknown_uri_raises_lookup_error(mlflow_store: str, tmp_path: Path, source: str) -> None:
    with pytest.raises(LookupError, match=source):
        download_in_process(mlflow_store, source, tmp_path)


def test_download_without_own_checkpoint_raises_lookup_error(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    run = client.create_run("0")
    with pytest.raises(LookupError, match="there is none"):
        download_in_process(mlflow_store, f"runs:/{run.info.run_id}", tmp_path)
    model = client.create_logged_model("0", "theirs")
    client.finalize_logged_model(model.model_id, "READY")
    with pytest.raises(LookupError, match="no checkpoint of pte_tracking"):
        download_in_process(mlflow_store, f"models:/{model.model_id}", tmp_path)


def test_join_overlapping_journal_pieces_stops_at_first_gap(tmp_path: Path) -> None:
    from pte_backends.mlflow._journal import join

    journal_bytes = bytes(range(100))
    for first, last in [(0, 10), (0, 30), (10, 20), (30, 60), (50, 80), (90, 100)]:
        (tmp_path / f"{first:015d}-{last:015d}.jsonl").write_bytes(journal_bytes[first:last])
    join(list(tmp_path.iterdir()), tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == journal_bytes[:80]


def test_journal_truncated_and_regrown_is_uploaded_again(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    for step in (1, 2):
        snapshot(recorded, step)
    recorded.deliver()
    recorded.journal.close()
    os.truncate(recorded.directory / "journal.jsonl", checkpoint_end(recorded, 1))
    recorded.journal = Journal(recorded.directory / "journal.jsonl")
    for step in range(2, 30):
        recorded.log(step, {"other": 1.0})
    snapshot(recorded, 30)
    recorded._channel = None
    recorded.end()
    result = download_in_process(uri, f"runs:/{find_run(uri, recorded).info.run_id}", tmp_path)
    assert result.name == "snapshot_iter_30"
    assert result.with_name("journal.jsonl").read_bytes() == recorded_bytes(recorded)[: checkpoint_end(recorded, 30)]
