"""Events of every kind, delivered to MLflow and read back with its client."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import event_encoding, events
from pte_tracking.testing import Points, RecordedRun

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]


def find_runs(uri: str, recorded: RecordedRun, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(uri)
    experiments = [item.experiment_id for item in client.search_experiments()]
    result: list[Run] = client.search_runs(experiments, f"tags.`pte.run_id` = '{recorded.manifest.id}'", view)
    return result


def find_run(uri: str, recorded: RecordedRun) -> Run:
    (result,) = find_runs(uri, recorded)
    return result


def read_points(uri: str, run: Run) -> Points:
    client = MlflowClient(uri)
    return {
        key: sorted((item.step, item.value) for item in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def list_artifacts(uri: str, run: Run, directory: str = "") -> list[str]:
    return [item.path for item in MlflowClient(uri).list_artifacts(run.info.run_id, directory)]


def read_artifact(run: Run, path: str) -> bytes:
    return Path(run.info.artifact_uri.removeprefix("file://"), path).read_bytes()


@pytest.fixture
def recorded(mlflow_store: str, tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))


def append_event(recorded: RecordedRun, kind: type[events.AnyEvent], *fields: Any) -> None:
    recorded.journal.append(kind, *fields)


def test_run_has_name_status_times_and_origin(mlflow_store: str, recorded: RecordedRun) -> None:
    append_event(recorded, events.Metrics, 1, {"a": 1.0})
    recorded.deliver()
    assert find_run(mlflow_store, recorded).info.status == "RUNNING"
    recorded.end()
    result, manifest = find_run(mlflow_store, recorded), recorded.manifest
    last = read_events(recorded)[-1]
    assert result.info.run_name == manifest.name
    assert (result.info.status, result.info.end_time) == ("FINISHED", int(last.time * 1000))
    assert result.info.start_time == int(manifest.start_time * 1000)
    assert result.data.tags["mlflow.user"] == manifest.context["user"]
    assert result.data.tags["mlflow.source.name"] == manifest.context["source"]
    assert result.data.tags["mlflow.source.type"] == "LOCAL"
    if commit := manifest.context.get("git_commit"):
        assert result.data.tags["mlflow.source.git.commit"] == commit


def test_run_description_names_directory_and_commands(mlflow_store: str, recorded: RecordedRun) -> None:
    recorded.manifest = msgspec.structs.replace(
        recorded.manifest, context={"host": "node1", "command": "python train.py --name `a`\n" + "x" * 10_000}
    )
    recorded.manifest.save(recorded.directory)
    recorded.deliver()
    tags = find_run(mlflow_store, recorded).data.tags
    first, *hints = tags["mlflow.note.content"].split("  \n")
    assert first == f"Started with `python train.py --name 'a' {'x' * 973}…` on `node1`."
    assert hints[0] == f"Show: `pte-tracking show {recorded.directory}`"


def test_run_description_of_the_user_is_kept(mlflow_store: str, recorded: RecordedRun) -> None:
    append_event(recorded, events.Tags, {"mlflow.note.content": "first"})
    recorded.deliver()
    assert find_run(mlflow_store, recorded).data.tags["mlflow.note.content"] == "first"
    MlflowClient(mlflow_store).set_tag(find_run(mlflow_store, recorded).info.run_id, "mlflow.note.content", "edited")
    recorded.crash()
    recorded.log(1, {"a": 1.0})
    recorded.end()
    assert find_run(mlflow_store, recorded).data.tags["mlflow.note.content"] == "edited"


def read_events(recorded: RecordedRun) -> list[events.AnyEvent]:
    lines = (recorded.directory / "journal.jsonl").read_bytes().splitlines()
    return [event_encoding.decode(line) for line in lines]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_run_status_is_stored_at_end(mlflow_store: str, recorded: RecordedRun, status: events.Status) -> None:
    append_event(recorded, events.RunEnded, status, None)
    recorded.deliver()
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    consumer.finish(status)
    assert find_run(mlflow_store, recorded).info.status == status


def test_metrics_have_event_time_and_epoch(mlflow_store: str, recorded: RecordedRun) -> None:
    append_event(recorded, events.Metrics, 7, {"train/loss": 0.5}, 1.5)
    recorded.end()
    result = find_run(mlflow_store, recorded)
    (row,) = [event for event in read_events(recorded) if isinstance(event, events.Metrics)]
    client = MlflowClient(mlflow_store)
    (metric,) = client.get_metric_history(result.info.run_id, "train/loss")
    assert (metric.step, metric.value, metric.timestamp) == (7, 0.5, int(row.time * 1000))
    assert read_points(mlflow_store, result)["epoch"] == [(7, 1.5)]


def test_batch_of_several_requests_that_fails_is_delivered_again_without_duplicates(
    mlflow_store: str, recorded: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(500):
        recorded.log(step, {"a": step / 7, "b": step / 3, "c": 0.5})
    log_batch, sizes = SqlAlchemyStore.log_batch, []

    def fail_once(self: SqlAlchemyStore, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        sizes.append(len(metrics))
        if len(sizes) == 2:
            raise MlflowException("The server is not available.")
        log_batch(self, run_id, metrics, params, tags)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", fail_once)
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    with pytest.raises(MlflowException):
        consumer.deliver_next()
    assert consumer.cursor.position == 0
    recorded.deliver()
    assert sizes == [1000, 500, 500]  # the new connection finds the stored data points
    assert read_points(mlflow_store, find_run(mlflow_store, recorded)) == {
        "a": [(step, step / 7) for step in range(500)],
        "b": [(step, step / 3) for step in range(500)],
        "c": [(step, 0.5) for step in range(500)],
    }


def test_two_logs_at_one_step_store_one_epoch(mlflow_store: str, recorded: RecordedRun) -> None:
    for log_name, key in [("log", "a"), ("other", "b")]:
        recorded.journal.append(events.Metrics, 1, {key: 1.0}, 2, None, log_name, at=100.0 + len(log_name))
        recorded.deliver()
    recorded.end()
    points = read_points(mlflow_store, find_run(mlflow_store, recorded))
    assert points == {"a": [(1, 1.0)], "b": [(1, 1.0)], "epoch": [(1, 2.0)]}


def test_metrics_nan_is_kept_and_infinity_becomes_float_max(mlflow_store: str, recorded: RecordedRun) -> None:
    append_event(recorded, events.Metrics, 1, {"nan": math.nan, "up": math.inf, "down": -math.inf})
    recorded.end()
    points = read_points(mlflow_store, find_run(mlflow_store, recorded))
    assert math.isnan(points["nan"][0][1])
    assert points["up"] == [(1, 1.7976931348623157e308)]
    assert points["down"] == [(1, -1.7976931348623157e308)]


def test_params_and_tags_are_stored(mlflow_store: str, recorded: RecordedRun) -> None:
    append_event(recorded, events.Params, {"lr": 0.1, "optim/name": "sgd", "none": None, "flag": True, "empty": ""})
    append_event(recorded, events.Tags, {"team": "vision"})
    append_event(recorded, events.Tags, {"team": "audio", "empty": ""})
    recorded.end()
    data = find_run(mlflow_store, recorded).data
    assert data.params == {"lr": "0.1", "optim/name": "sgd", "none": "None", "flag": "True", "empty": ""}
    assert (data.tags["team"], data.tags["empty"]) == ("audio", "")


def test_changed_param_becomes_tag_and_warns_once(
    mlflow_store: str, recorded: RecordedRun, caplog: pytest.LogCaptureFixture
) -> None:
    append_event(recorded, events.Params, {"lr": 0.1, "same": 1})
    recorded.deliver()
    for _ in range(2):
        append_event(recorded, events.Params, {"lr": 0.2, "same": 1, "new": "x"})
        append_event(recorded, events.Metrics, 1, {"a": 1.0})
    recorded.end()
    result = find_run(mlflow_store, recorded)
    assert result.data.params == {"lr": "0.1", "same": "1", "new": "x"}
    assert result.data.tags["pte.param.lr"] == "0.2"
    assert read_points(mlflow_store, result)["a"] == [(1, 1.0)]
    assert len([record for record in caplog.records if "lr" in record.getMessage()]) == 1


@pytest.mark.parametrize("is_reopened", [False, True], ids=["same session", "other session"])
def test_param_that_returns_to_the_first_value_replaces_the_tag(
    mlflow_store: str, recorded: RecordedRun, is_reopened: bool
) -> None:
    for rate in (0.1, 0.2, 0.1):
        append_event(recorded, events.Params, {"lr": rate, "same": 1})
        recorded.deliver()
        if is_reopened:
            recorded.crash()
    recorded.end()
    data = find_run(mlflow_store, recorded).data
    assert (data.params["lr"], data.tags["pte.param.lr"]) == ("0.1", "0.1")
    assert "pte.param.same" not in data.tags


def test_long_params_and_tags_are_stored_as_artifacts(
    mlflow_store: str, recorded: RecordedRun, caplog: pytest.LogCaptureFixture
) -> None:
    long_text = "ä" * 6001
    append_event(recorded, events.Params, {"deep/text": long_text, "just": "x" * 6000})
    append_event(recorded, events.Params, {"deep/text": long_text})
    append_event(recorded, events.Tags, {"note": "y" * 8001})
    recorded.end()
    result = find_run(mlflow_store, recorded)
    assert "params/deep/text.txt" in result.data.params["deep/text"]
    assert result.data.params["just"] == "x" * 6000
    assert read_artifact(result, "params/deep/text.txt").decode() == long_text
    assert read_artifact(result, "tags/note.txt") == b"y" * 8001
    assert "pte.param.deep/text" not in result.data.tags
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 2


def test_figures_texts_and_files_become_artifacts(mlflow_store: str, recorded: RecordedRun) -> None:
    directory = recorded.directory
    (directory / "picture.png").write_bytes(b"a picture")
    (directory / "folder").mkdir()
    (directory / "folder" / "file").write_text("a file")
    append_event(recorded, events.Figure, "val/confusion", 3, "picture.png")
    append_event(recorded, events.Figure, "val/confusion", 3, "picture.png")
    append_event(recorded, events.Text, "notes/item", 2, "some *text*")
    append_event(recorded, events.Artifact, "picture.png", "a b/c")
    append_event(recorded, events.Artifact, "folder", "")
    recorded.end()
    result = find_run(mlflow_store, recorded)
    pictures = list_artifacts(mlflow_store, result, "images")
    assert len(pictures) == 2
    assert all(path.startswith("images/val~confusion+step+3+timestamp+") for path in pictures)
    assert {read_artifact(result, path) for path in pictures} == {b"a picture"}
    assert read_artifact(result, "figures/val/confusion.png") == b"a picture"
    assert result.data.tags["mlflow.loggedImages"] == "True"
    assert read_artifact(result, "text/notes/item/step_2.md") == b"some *text*"
    assert read_artifact(result, "a b/c/picture.png") == b"a picture"
    assert read_artifact(result, "folder/file") == b"a file"


def test_datasets_logged_twice_become_one_input(mlflow_store: str, recorded: RecordedRun) -> None:
    digest = "0123456789" * 6
    for _ in range(2):
        append_event(recorded, events.Dataset, "digits", digest, "train", "https://example.org/digits")
    append_event(recorded, events.Dataset, "digits", digest[::-1], "val", "")
    recorded.end()
    inputs = find_run(mlflow_store, recorded).inputs.dataset_inputs
    result = {item.tags[0].value: (item.dataset.name, item.dataset.digest, item.dataset.source) for item in inputs}
    assert result == {
        "train": ("digits", digest[:36], '{"url": "https://example.org/digits"}'),
        "val": ("digits", digest[::-1][:36], '{"uri": ""}'),
    }
    assert len(inputs) == 2


def test_missing_file_is_rejected_and_rest_is_delivered(mlflow_store: str, recorded: RecordedRun) -> None:
    append_event(recorded, events.Figure, "missing", 1, "missing.png")
    append_event(recorded, events.Metrics, 1, {"a": 1.0})
    recorded.end()
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert consumer.cursor.rejected == {"2": "File missing.png does not exist in the run directory."}
    assert read_points(mlflow_store, find_run(mlflow_store, recorded)) == {"a": [(1, 1.0)]}


def test_rejected_events_do_not_affect_other_events(mlflow_store: str, recorded: RecordedRun) -> None:
    for step in range(20):
        append_event(recorded, events.Metrics, step, {"a": float(step)})
        if step in (3, 11):
            recorded.journal.append(events.Metrics, step, {"early": 1.0}, at=-5.0)  # MLflow rejects times before 1970.
    append_event(recorded, events.Metrics, 2**70, {"far": 1.0})  # Not a valid event, so it is skipped before delivery.
    recorded.end()
    points = read_points(mlflow_store, find_run(mlflow_store, recorded))
    assert points == {"a": [(step, float(step)) for step in range(20)]}
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert len(consumer.cursor.rejected) == 2


def test_histograms_are_skipped_and_logged_once(recorded: RecordedRun, caplog: pytest.LogCaptureFixture) -> None:
    for step in range(3):
        append_event(recorded, events.Histogram, "weights", step, [0.0, 1.0], [1.0], 0.0, 1.0, 1.0, 1.0)
    recorded.end()
    assert len([record for record in caplog.records if "histogram" in record.getMessage()]) == 1


def test_unusable_artifact_storage_does_not_block_metrics(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    client.create_experiment("mine", artifact_location="nowhere://bucket/folder")
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    assert read_points(mlflow_store, find_run(mlflow_store, recorded)) == {"a": [(1, 1.0)]}


@pytest.mark.parametrize("deleted_entity", ["run", "experiment"])
def test_deleted_run_or_experiment_closes_sink(mlflow_store: str, tmp_path: Path, deleted_entity: str) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    client = MlflowClient(mlflow_store)
    result = find_run(mlflow_store, recorded)
    if deleted_entity == "run":
        client.delete_run(result.info.run_id)
    else:
        client.delete_experiment(result.info.experiment_id)
    recorded.log(2, {"a": 2.0})
    recorded.end()
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert "was deleted" in (consumer.cursor.closed_reason or "")
    assert not find_runs(mlflow_store, recorded)


def test_deleted_experiment_before_first_delivery_closes_sink(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    client.delete_experiment(client.create_experiment("mine"))
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    recorded.deliver()
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert "'mine' was deleted" in (consumer.cursor.closed_reason or "")


def test_new_or_empty_experiment_gets_model_development_kind(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    for name in ("Default", "made by us"):
        RecordedRun(tmp_path / name, MLflowSink(mlflow_store, name)).end()
        tags = client.get_experiment_by_name(name).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_experiment_with_existing_runs_keeps_its_tags(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    client.create_run("0")
    RecordedRun(tmp_path / "run", MLflowSink(mlflow_store)).end()
    assert "mlflow.experimentKind" not in client.get_experiment("0").tags


def test_duplicate_run_is_retired(mlflow_store: str, recorded: RecordedRun) -> None:
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    first = find_run(mlflow_store, recorded)
    client = MlflowClient(mlflow_store)
    duplicate_id = client.create_run("0", tags={"pte.run_id": recorded.manifest.id}).info.run_id
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    recorded.log(2, {"a": 2.0})
    consumer.deliver_next()
    assert find_run(mlflow_store, recorded).info.run_id == first.info.run_id
    retired = client.get_run(duplicate_id)
    assert (retired.info.status, retired.info.lifecycle_stage) == ("KILLED", "deleted")
    assert retired.data.tags["pte.duplicate_of"] == first.info.run_id
    assert read_points(mlflow_store, first)["a"] == [(1, 1.0), (2, 2.0)]
