"""Helpers for tests of snapshots that are stored as logged models."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

from pte_backends.mlflow import _checkpoints
from pte_backends.mlflow._download import download
from pte_tracking._store import events
from pte_tracking._store.journal import JournalPosition
from pte_tracking._store.journal_reader import read
from pte_tracking.testing import Points, RecordedRun


def find_run(uri: str, recorded: RecordedRun) -> Run:
    client = MlflowClient(uri)
    experiments = [item.experiment_id for item in client.search_experiments()]
    result = client.search_runs(experiments, f"tags.`pte.run_id` = '{recorded.manifest.id}'")
    (run,) = (run for run in result if "pte.superseded_by" not in run.data.tags)
    return run


def find_models(uri: str, recorded: RecordedRun) -> dict[str, LoggedModel]:
    """Return the models of the run by snapshot path."""
    result = MlflowClient(uri).search_logged_models([find_run(uri, recorded).info.experiment_id])
    by_file = {model.tags["pte.checkpoint"]: model for model in result}
    assert len(by_file) == len(result)
    return by_file


def read_points(uri: str, run: Run) -> Points:
    client = MlflowClient(uri)
    return {
        key: sorted((item.step, item.value) for item in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def read_artifacts(uri: str, model: LoggedModel, directory: Path) -> dict[str, bytes]:
    target = directory / f"read-{model.model_id}"
    target.mkdir(exist_ok=True)
    repository = _checkpoints.open_repository(MlflowClient(uri), model)
    return {
        item.path: Path(repository.download_artifacts(item.path, str(target))).read_bytes()
        for item in repository.list_artifacts()
    }


def log_snapshot(recorded: RecordedRun, step: int, data: bytes = b"", **values: float) -> JournalPosition:
    """Log a row and a snapshot of one step. Return the position between them, to which a resume rewinds."""
    position = recorded.log(step, {"val/loss": 1.0 / step})
    data = data or b"the state after step %d" % step
    name = f"snapshot_iter_{step}"
    (recorded.directory / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    values = {"val/loss": 0.99, **values}
    recorded.journal.append(events.Checkpoint, name, step, digest, len(data), step / 10, values)
    return position


def prune_snapshot(recorded: RecordedRun, step: int) -> None:
    (recorded.directory / f"snapshot_iter_{step}").unlink()
    recorded.journal.append(events.CheckpointRemoved, f"snapshot_iter_{step}", step)


def resume_run(recorded: RecordedRun, position: JournalPosition, step: int) -> None:
    recorded.journal.rewind(position, step)
    manifest = recorded.manifest
    recorded.journal.append(events.RunStarted, manifest.id, manifest.name, 2, "host", True)


def position_after(recorded: RecordedRun, seq: int) -> int:
    return next(end_position for event, end_position in read(recorded.directory / "journal.jsonl") if event.seq == seq)


def checkpoint_end(recorded: RecordedRun, step: int) -> int:
    journal = recorded.directory / "journal.jsonl"
    return [
        end_position
        for event, end_position in read(journal)
        if isinstance(event, events.Checkpoint) and event.step == step
    ][-1]


def recorded_bytes(recorded: RecordedRun) -> bytes:
    return (recorded.directory / "journal.jsonl").read_bytes()


def download_to(uri: str, source: str, directory: Path) -> Path:
    """Download in this process, which is faster than a separate one."""
    target = directory / f"fetched-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    target.mkdir(exist_ok=True)
    return target / download(uri, source, target)
