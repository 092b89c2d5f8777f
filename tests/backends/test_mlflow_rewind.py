"""Rewinds with on_rewind="keep" and "fork": one data point per key and step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pte_backends.mlflow import MLflowSink
from pte_backends.mlflow._connection import MLflowConnection
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import events
from pte_tracking.sinks import map_key
from pte_tracking.testing import RecordedRun

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]

MetricHistory = dict[str, list[tuple[int, float, int]]]


def read_history(uri: str, run: Run) -> MetricHistory:
    client = MlflowClient(uri)
    return {
        key: sorted(
            (metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(run.info.run_id, key)
        )
        for key in run.data.metrics
    }


def find_runs(uri: str) -> dict[str, Run]:
    """Return the MLflow runs by part: "0", or the sequence number of the rewind that created the run."""
    return {run.data.tags.get("pte.part", "0"): run for run in MlflowClient(uri).search_runs(["0"])}


def sort_runs(uri: str) -> list[Run]:
    runs_by_part = find_runs(uri)
    return [runs_by_part[part] for part in sorted(runs_by_part, key=int)]


def train(recorded: RecordedRun, steps: range, scale: float = 1.0) -> list[Any]:
    return [recorded.log(step, {"acc@5": scale * step, "b": 1.0}, epoch=step) for step in steps]


def resume_run(recorded: RecordedRun, position: Any, step: int) -> None:
    recorded.journal.rewind(position, step)
    manifest = recorded.manifest
    recorded.journal.append(events.RunStarted, manifest.id, manifest.name, 2, "host", True)


@pytest.fixture
def kept_run(mlflow_store: str, tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))


@pytest.fixture
def forked_run(mlflow_store: str, tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, on_rewind="fork"))


def test_rewind_keep_leaves_stored_metrics_unchanged(mlflow_store: str, kept_run: RecordedRun) -> None:
    positions = train(kept_run, range(1, 6))
    kept_run.deliver()
    before = read_history(mlflow_store, find_runs(mlflow_store)["0"])
    resume_run(kept_run, positions[1], 2)
    train(kept_run, range(3, 6), scale=100.0)
    kept_run.deliver()
    assert read_history(mlflow_store, find_runs(mlflow_store)["0"]) == before
    train(kept_run, range(6, 8))
    kept_run.end()
    (run,) = find_runs(mlflow_store).values()
    assert [step for step, _, _ in read_history(mlflow_store, run)["epoch"]] == list(range(1, 8))
    assert run.info.status == "FINISHED"


def test_fork_copies_effective_history_with_original_times(mlflow_store: str, forked_run: RecordedRun) -> None:
    (forked_run.directory / "picture.png").write_bytes(b"a picture")
    forked_run.journal.append(events.Params, {"lr": 0.1})
    forked_run.journal.append(events.Tags, {"team": "vision"})
    forked_run.journal.append(events.Figure, "loss", 1, "picture.png")
    positions = train(forked_run, range(1, 6))
    forked_run.deliver()
    first = read_history(mlflow_store, find_runs(mlflow_store)["0"])
    note = "mlflow.note.content"
    MlflowClient(mlflow_store).set_tag(find_runs(mlflow_store)["0"].info.run_id, note, "my description")
    resume_run(forked_run, positions[1], 2)
    train(forked_run, range(3, 8), scale=10.0)
    forked_run.end()
    old, new = sort_runs(mlflow_store)
    assert read_history(mlflow_store, old) == first
    second = read_history(mlflow_store, new)
    assert second.keys() == first.keys()
    for key in first:
        assert second[key][:2] == first[key][:2]
        assert [step for step, _, _ in second[key]] == list(range(1, 8))
    key = map_key("acc@5", MLflowSink.limits)
    assert [value for _, value, _ in second[key]] == [1.0, 2.0, *(10.0 * step for step in range(3, 8))]
    assert (new.data.params, new.data.tags["team"]) == ({"lr": "0.1"}, "vision")
    assert len(MlflowClient(mlflow_store).list_artifacts(new.info.run_id, "images")) == 2
    assert new.data.tags[note] == old.data.tags[note] == "my description"
    assert new.data.tags["pte.forked_from"] == old.info.run_id
    assert old.data.tags["pte.superseded_by"] == old.data.tags["mlflow.parentRunId"] == new.info.run_id
    assert (old.info.status, new.info.status) == ("KILLED", "FINISHED")
    assert new.info.run_name == old.info.run_name


@pytest.mark.parametrize("stage", ["create", "copy", "supersede", "save"])
def test_interrupted_fork_is_completed_without_second_fork(
    mlflow_store: str, forked_run: RecordedRun, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    positions = train(forked_run, range(1, 6))
    forked_run.deliver()
    resume_run(forked_run, positions[2], 3)

    def stop(*_: object, **__: object) -> None:
        raise ConnectionError(stage)

    with monkeypatch.context() as patched:
        if stage == "create":
            patched.setattr("pte_backends.mlflow._connection._runs.fork_run", stop)
        elif stage == "copy":
            patched.setattr(MLflowConnection, "_copy", stop)
        elif stage == "supersede":
            patched.setattr("pte_backends.mlflow._connection._runs.supersede", stop)
        else:
            patched.setattr(SinkConsumer, "save", stop)
        channel = SinkConsumer(forked_run.directory, forked_run.manifest, forked_run.manifest.sinks[0])
        with pytest.raises(ConnectionError):
            channel.deliver_next()
    train(forked_run, range(4, 7))
    forked_run.crash()
    forked_run.end()
    assert len(MlflowClient(mlflow_store).search_runs(["0"])) == 2
    old, new = sort_runs(mlflow_store)
    assert [step for step, _, _ in read_history(mlflow_store, new)["b"]] == list(range(1, 7))
    assert "pte.superseded_by" in old.data.tags


def test_second_fork_supersedes_first(mlflow_store: str, forked_run: RecordedRun) -> None:
    positions = train(forked_run, range(1, 6))
    forked_run.deliver()
    resume_run(forked_run, positions[3], 4)
    train(forked_run, range(5, 9))
    forked_run.deliver()
    resume_run(forked_run, positions[0], 1)
    train(forked_run, range(2, 4))
    forked_run.end()
    first, second, third = sort_runs(mlflow_store)
    assert [run.data.tags.get("pte.superseded_by") for run in (first, second, third)] == [
        second.info.run_id,
        third.info.run_id,
        None,
    ]
    assert [step for step, _, _ in read_history(mlflow_store, third)["b"]] == [1, 2, 3]


def test_fork_with_lost_cursor_continues_in_newest_run(mlflow_store: str, forked_run: RecordedRun) -> None:
    positions = train(forked_run, range(1, 4))
    forked_run.deliver()
    resume_run(forked_run, positions[0], 1)
    train(forked_run, range(2, 5))
    forked_run.deliver()
    (forked_run.directory / "delivery" / "mlflow.json").unlink()
    forked_run.crash()
    forked_run.end()
    _, new = sort_runs(mlflow_store)
    assert [step for step, _, _ in read_history(mlflow_store, new)["b"]] == [1, 2, 3, 4]


def test_fork_with_missing_file_completes(mlflow_store: str, forked_run: RecordedRun) -> None:
    (forked_run.directory / "picture.png").write_bytes(b"a picture")
    forked_run.journal.append(events.Figure, "loss", 1, "picture.png")
    positions = train(forked_run, range(1, 4))
    forked_run.deliver()
    (forked_run.directory / "picture.png").unlink()
    resume_run(forked_run, positions[1], 2)
    forked_run.end()
    _, new = sort_runs(mlflow_store)
    assert [step for step, _, _ in read_history(mlflow_store, new)["b"]] == [1, 2]


def test_fork_of_joined_run_creates_own_run(mlflow_store: str, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as active:
        recorded = RecordedRun(tmp_path / "run", MLflowSink(on_rewind="fork"))
    mlflow.set_tracking_uri(None)
    positions = train(recorded, range(1, 4))
    recorded.deliver()
    resume_run(recorded, positions[0], 1)
    recorded.end()
    old, new = sort_runs(mlflow_store)
    assert (old.info.run_id, new.info.status) == (active.info.run_id, "FINISHED")
