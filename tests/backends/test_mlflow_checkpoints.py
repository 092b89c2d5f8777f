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
from pte_tracking._delivery.consumer import Channel
from pte_tracking._store import events
from pte_tracking._store.journal import Journal, Mark, read
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


def the_run(uri: str, recorded: Recorded) -> Run:
    client = MlflowClient(uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`pte.run_id` = '{recorded.manifest.id}'")
    (run,) = (run for run in found if "pte.superseded_by" not in run.data.tags)
    return run


def models(uri: str, recorded: Recorded) -> dict[str, LoggedModel]:
    """The run's models by their file."""
    found = MlflowClient(uri).search_logged_models([the_run(uri, recorded).info.experiment_id])
    by_file = {model.tags["pte.checkpoint"]: model for model in found}
    assert len(by_file) == len(found)
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


def snapshot(recorded: Recorded, step: int, data: bytes = b"", **values: float) -> Mark:
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


def resume(recorded: Recorded, mark: Mark, step: int) -> None:
    recorded.journal.rewind(mark, step)
    manifest = recorded.manifest
    recorded.journal.append(events.RunStarted, manifest.id, manifest.name, 2, "host", True)


def test_a_snapshot_becomes_a_logged_model_of_the_run(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    recorded.log(1, {"val/loss": 5.0})
    snapshot(recorded, 2, alone=3.0, odd=math.nan)
    recorded.log(3, {"val/loss": 7.0})
    recorded.end()
    run, model = the_run(uri, recorded), models(uri, recorded)["snapshot_iter_2"]
    assert (model.name, model.status, model.source_run_id) == ("snapshot_iter_2", "READY", run.info.run_id)
    assert model.params == {"step": "2", "epoch": "0.2", "size": str(len(b"the state after step 2"))}
    assert content(uri, model, tmp_path) == {"snapshot_iter_2": b"the state after step 2"}
    assert [(one.key, one.step, one.value) for one in model.metrics] == [("val/loss", 2, 0.5)]
    assert (model.tags["pte.value.alone"], model.tags["pte.value.odd"]) == ("3.0", "nan")
    assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(model.model_id, 2)]
    assert points(uri, run) == {"val/loss": [(1, 5.0), (2, 0.5), (3, 7.0)]}


def test_the_values_of_a_snapshot_that_comes_late_are_those_of_its_step(uri: str, recorded: Recorded) -> None:
    for step in range(1, 4):
        recorded.log(step, {"a": float(step)})
    recorded.deliver()
    recorded._channel = None  # another process: it remembers no points
    (recorded.directory / "late").write_bytes(b"state")
    digest = hashlib.sha256(b"state").hexdigest()
    recorded.journal.append(events.Checkpoint, "late", 2, digest, 5, None, {"a": 2.5})
    recorded.end()
    assert [(one.key, one.step, one.value) for one in models(uri, recorded)["late"].metrics] == [("a", 2, 2.0)]
    assert points(uri, the_run(uri, recorded)) == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_a_snapshot_that_is_delivered_twice_is_one_model(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    snapshot(recorded, 1)
    recorded.deliver(saved=False)
    first = models(uri, recorded)["snapshot_iter_1"]
    recorded.end()
    second = models(uri, recorded)["snapshot_iter_1"]
    assert first.model_id == second.model_id
    assert len(the_run(uri, recorded).outputs.model_outputs) == 1
    assert points(uri, the_run(uri, recorded)) == {"val/loss": [(1, 1.0)]}


@pytest.mark.parametrize("stage", ["create", "log_artifact", "_describe", "_link", "finalize_logged_model"])
def test_an_upload_that_was_interrupted_is_finished(
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
    assert len(the_run(uri, recorded).outputs.model_outputs) == 1


def test_a_pruned_snapshot_vanishes_with_its_bytes(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    for step in (1, 2):
        snapshot(recorded, step)
    recorded.deliver()
    gone = models(uri, recorded)["snapshot_iter_1"]
    prune(recorded, 1)
    recorded.deliver(saved=False)
    recorded.end()
    assert models(uri, recorded).keys() == {"snapshot_iter_2"}
    assert _checkpoints.repository(MlflowClient(uri), gone).list_artifacts() == []


def test_a_snapshot_that_was_pruned_before_it_was_delivered_is_skipped(uri: str, recorded: Recorded) -> None:
    snapshot(recorded, 1)
    prune(recorded, 1)
    snapshot(recorded, 2)
    recorded.end()
    assert models(uri, recorded).keys() == {"snapshot_iter_2"}
    channel = Channel(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert channel.progress.set_aside == {}


def test_a_snapshot_that_replaces_one_of_its_name_takes_its_place(uri: str, recorded: Recorded, tmp_path: Path) -> None:
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
    assert points(uri, the_run(uri, recorded)) == {"val/loss": [(1, 1.0), (2, 0.5)]}


def test_of_snapshots_under_one_name_the_last_is_kept(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    for step, data in [(1, b"first"), (2, b"later")]:
        (recorded.directory / "latest").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        recorded.journal.append(events.Checkpoint, "latest", step, digest, len(data))
    recorded.end()
    model = models(uri, recorded)["latest"]
    assert (model.params["step"], content(uri, model, tmp_path)) == ("2", {"latest": b"later"})
    assert len(the_run(uri, recorded).outputs.model_outputs) == 1


def test_a_fork_takes_the_models_along(uri: str, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path / "run", MLflowSink(uri, tmp_path.name, on_rewind="fork"))
    snapshot(recorded, 1)
    recorded.log(2, {"val/loss": 2.0})
    recorded.deliver()
    before = models(uri, recorded)
    resume(recorded, recorded.journal.mark._replace(seq=3, position=position_behind(recorded, 3)), 1)
    snapshot(recorded, 2)
    recorded.end()
    after, run = models(uri, recorded), the_run(uri, recorded)
    assert after["snapshot_iter_1"].model_id == before["snapshot_iter_1"].model_id
    assert {output.model_id for output in run.outputs.model_outputs} == {one.model_id for one in after.values()}
    fetched = download_here(uri, f"runs:/{run.info.run_id}", tmp_path)
    assert fetched.name == "snapshot_iter_2"
    assert fetched.with_name("journal.jsonl").read_bytes() == recorded_bytes(recorded)[: checkpoint_end(recorded, 2)]


def position_behind(recorded: Recorded, seq: int) -> int:
    return next(behind for event, behind in read(recorded.directory / "journal.jsonl") if event.seq == seq)


def checkpoint_end(recorded: Recorded, step: int) -> int:
    journal = recorded.directory / "journal.jsonl"
    return [behind for event, behind in read(journal) if isinstance(event, events.Checkpoint) and event.step == step][
        -1
    ]


def recorded_bytes(recorded: Recorded) -> bytes:
    return (recorded.directory / "journal.jsonl").read_bytes()


def download_here(uri: str, what: str, folder: Path) -> Path:
    """Fetch in this process, which is quicker."""
    target = folder / f"fetched-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
    target.mkdir(exist_ok=True)
    return target / download(uri, what, target)


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


def test_the_newest_checkpoint_of_a_run_comes_with_the_journal_up_to_it(
    uri: str, trained: Recorded, tmp_path: Path
) -> None:
    found = download_here(uri, f"runs:/{the_run(uri, trained).info.run_id}", tmp_path)
    assert (found.name, found.read_bytes()) == ("snapshot_iter_6", b"the state after step 6")
    journal = found.with_name("journal.jsonl").read_bytes()
    assert journal == recorded_bytes(trained)[: checkpoint_end(trained, 6)]
    assert sorted(path.name for path in found.parent.iterdir()) == ["journal.jsonl", "snapshot_iter_6"]


def test_fetching_leaves_mlflow_to_another_process(uri: str, trained: Recorded, tmp_path: Path) -> None:
    run_id = the_run(uri, trained).info.run_id
    code = "import sys, pathlib, pte_backends.mlflow; sink = pte_backends.mlflow.MLflowSink(sys.argv[1]); "
    code += "print(sink.fetch(sys.argv[2], pathlib.Path(sys.argv[3])), 'mlflow' in sys.modules)"
    command = [sys.executable, "-c", code, uri, f"runs:/{run_id}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "snapshot_iter_6"), "False"]
    with pytest.raises(LookupError, match="runs:/nothing"):
        MLflowSink(uri).fetch("runs:/nothing", tmp_path)


def test_a_given_checkpoint_comes_with_the_journal_up_to_it(uri: str, trained: Recorded, tmp_path: Path) -> None:
    model = models(uri, trained)["snapshot_iter_2"]
    found = download_here(uri, f"models:/{model.model_id}", tmp_path)
    assert (found.name, found.read_bytes()) == ("snapshot_iter_2", b"the state after step 2")
    journal = found.with_name("journal.jsonl").read_bytes()
    assert journal == recorded_bytes(trained)[: checkpoint_end(trained, 2)]


def test_pending_and_damaged_checkpoints_are_passed_over_or_refused(
    uri: str, trained: Recorded, tmp_path: Path
) -> None:
    client = MlflowClient(uri)
    run = the_run(uri, trained)
    tags = {"pte.run_id": trained.manifest.id, "pte.checkpoint": "snapshot_iter_9", "pte.sha256": "x"}
    pending = client.create_logged_model(run.info.experiment_id, "p", run.info.run_id, tags, {"step": "9"})
    damaged = models(uri, trained)["snapshot_iter_6"]
    (tmp_path / "snapshot_iter_6").write_bytes(b"the state after step 5")
    _checkpoints.repository(client, damaged).log_artifact(str(tmp_path / "snapshot_iter_6"))
    assert download_here(uri, f"runs:/{run.info.run_id}", tmp_path).name == "snapshot_iter_2"
    with pytest.raises(LookupError, match="PENDING"):
        download_here(uri, f"models:/{pending.model_id}", tmp_path)
    with pytest.raises(LookupError, match="damaged"):
        download_here(uri, f"models:/{damaged.model_id}", tmp_path)


def test_a_checkpoint_that_was_taken_back_comes_last(uri: str, recorded: Recorded, tmp_path: Path) -> None:
    first = snapshot(recorded, 2)
    snapshot(recorded, 4)
    recorded.deliver()
    resume(recorded, first, 2)
    # The snapshot came before its event was taken back: it is announced again.
    data = (recorded.directory / "snapshot_iter_2").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    recorded.journal.append(events.Checkpoint, "snapshot_iter_2", 2, digest, len(data), 0.2, {})
    recorded.deliver()
    assert download_here(uri, f"runs:/{the_run(uri, recorded).info.run_id}", tmp_path).name == "snapshot_iter_2"


@pytest.mark.parametrize(
    "what", ["runs:/0123456789abcdef0123456789abcdef", "models:/m-0123", "models:/name/1", "runs:/"]
)
def test_what_is_not_there_is_told(mlflow_store: str, tmp_path: Path, what: str) -> None:
    with pytest.raises(LookupError, match=what):
        download_here(mlflow_store, what, tmp_path)


def test_a_run_without_checkpoints_and_foreign_models_are_told(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    run = client.create_run("0")
    with pytest.raises(LookupError, match="there is none"):
        download_here(mlflow_store, f"runs:/{run.info.run_id}", tmp_path)
    model = client.create_logged_model("0", "theirs")
    client.finalize_logged_model(model.model_id, "READY")
    with pytest.raises(LookupError, match="no checkpoint of pte_tracking"):
        download_here(mlflow_store, f"models:/{model.model_id}", tmp_path)


def test_journal_pieces_join_whatever_they_overlap(tmp_path: Path) -> None:
    from pte_backends.mlflow._journal import join

    whole = bytes(range(100))
    for first, last in [(0, 10), (0, 30), (10, 20), (30, 60), (50, 80), (90, 100)]:
        (tmp_path / f"{first:015d}-{last:015d}.jsonl").write_bytes(whole[first:last])
    join(list(tmp_path.iterdir()), tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == whole[:80]


def test_a_journal_that_lost_its_end_and_grew_again_is_stored_anew(
    uri: str, recorded: Recorded, tmp_path: Path
) -> None:
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
    found = download_here(uri, f"runs:/{the_run(uri, recorded).info.run_id}", tmp_path)
    assert found.name == "snapshot_iter_30"
    assert found.with_name("journal.jsonl").read_bytes() == recorded_bytes(recorded)[: checkpoint_end(recorded, 30)]
