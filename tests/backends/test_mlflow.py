"""What is logged comes back from MLflow, value for value, read with its own client."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.consumer import Channel
from pte_tracking._store import events
from pte_tracking.testing import Points, Recorded

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow's own
]


def runs_of(uri: str, recorded: Recorded, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found: list[Run] = client.search_runs(experiments, f"tags.`pte.run_id` = '{recorded.manifest.id}'", view)
    return found


def the_run(uri: str, recorded: Recorded) -> Run:
    (found,) = runs_of(uri, recorded)
    return found


def points_of(uri: str, run: Run) -> Points:
    client = MlflowClient(uri)
    return {
        key: sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def artifacts_of(uri: str, run: Run, folder: str = "") -> list[str]:
    return [one.path for one in MlflowClient(uri).list_artifacts(run.info.run_id, folder)]


def content_of(run: Run, path: str) -> bytes:
    return Path(run.info.artifact_uri.removeprefix("file://"), path).read_bytes()


@pytest.fixture
def recorded(mlflow_store: str, tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "run", MLflowSink(mlflow_store))


def log(recorded: Recorded, kind: type[events.AnyEvent], *fields: Any) -> None:
    recorded.journal.append(kind, *fields)


def test_a_run_has_its_name_status_times_and_origin(mlflow_store: str, recorded: Recorded) -> None:
    log(recorded, events.Metrics, 1, {"a": 1.0})
    recorded.deliver()
    assert the_run(mlflow_store, recorded).info.status == "RUNNING"
    recorded.end()
    found, manifest = the_run(mlflow_store, recorded), recorded.manifest
    last = recorded_events(recorded)[-1]
    assert found.info.run_name == manifest.name
    assert (found.info.status, found.info.end_time) == ("FINISHED", int(last.time * 1000))
    assert found.info.start_time == int(manifest.start_time * 1000)
    assert found.data.tags["mlflow.user"] == manifest.context["user"]
    assert found.data.tags["mlflow.source.name"] == manifest.context["source"]
    assert found.data.tags["mlflow.source.type"] == "LOCAL"
    if commit := manifest.context.get("git_commit"):
        assert found.data.tags["mlflow.source.git.commit"] == commit


def recorded_events(recorded: Recorded) -> list[events.AnyEvent]:
    lines = (recorded.directory / "journal.jsonl").read_bytes().splitlines()
    return [events.decode(line) for line in lines]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_did(mlflow_store: str, recorded: Recorded, status: events.Status) -> None:
    log(recorded, events.RunEnded, status, None)
    recorded.deliver()
    channel = Channel(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    channel.finish(status)
    assert the_run(mlflow_store, recorded).info.status == status


def test_points_have_the_time_of_their_event_and_an_epoch_beside_them(mlflow_store: str, recorded: Recorded) -> None:
    log(recorded, events.Metrics, 7, {"train/loss": 0.5}, 1.5)
    recorded.end()
    found = the_run(mlflow_store, recorded)
    (row,) = [event for event in recorded_events(recorded) if isinstance(event, events.Metrics)]
    client = MlflowClient(mlflow_store)
    (point,) = client.get_metric_history(found.info.run_id, "train/loss")
    assert (point.step, point.value, point.timestamp) == (7, 0.5, int(row.time * 1000))
    assert points_of(mlflow_store, found)["epoch"] == [(7, 1.5)]


def test_two_logs_of_one_step_give_one_epoch(mlflow_store: str, recorded: Recorded) -> None:
    for log_name, key in [("log", "a"), ("other", "b")]:
        recorded.journal.append(events.Metrics, 1, {key: 1.0}, 2, None, log_name, at=100.0 + len(log_name))
        recorded.deliver()
    recorded.end()
    points = points_of(mlflow_store, the_run(mlflow_store, recorded))
    assert points == {"a": [(1, 1.0)], "b": [(1, 1.0)], "epoch": [(1, 2.0)]}


def test_nan_stays_and_infinities_become_the_largest_float(mlflow_store: str, recorded: Recorded) -> None:
    log(recorded, events.Metrics, 1, {"nan": math.nan, "up": math.inf, "down": -math.inf})
    recorded.end()
    points = points_of(mlflow_store, the_run(mlflow_store, recorded))
    assert math.isnan(points["nan"][0][1])
    assert points["up"] == [(1, 1.7976931348623157e308)]
    assert points["down"] == [(1, -1.7976931348623157e308)]


def test_params_and_tags_come_back(mlflow_store: str, recorded: Recorded) -> None:
    log(recorded, events.Params, {"lr": 0.1, "optim/name": "sgd", "none": None, "flag": True, "empty": ""})
    log(recorded, events.Tags, {"team": "vision"})
    log(recorded, events.Tags, {"team": "audio", "empty": ""})
    recorded.end()
    data = the_run(mlflow_store, recorded).data
    assert data.params == {"lr": "0.1", "optim/name": "sgd", "none": "None", "flag": "True", "empty": ""}
    assert (data.tags["team"], data.tags["empty"]) == ("audio", "")


def test_a_param_that_changed_is_kept_as_a_tag_and_told_once(
    mlflow_store: str, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    log(recorded, events.Params, {"lr": 0.1, "same": 1})
    recorded.deliver()
    for _ in range(2):
        log(recorded, events.Params, {"lr": 0.2, "same": 1, "new": "x"})
        log(recorded, events.Metrics, 1, {"a": 1.0})
    recorded.end()
    found = the_run(mlflow_store, recorded)
    assert found.data.params == {"lr": "0.1", "same": "1", "new": "x"}
    assert found.data.tags["pte.param.lr"] == "0.2"
    assert points_of(mlflow_store, found)["a"] == [(1, 1.0)]
    assert len([record for record in caplog.records if "lr" in record.getMessage()]) == 1


def test_long_params_and_tags_are_kept_whole_as_artifacts(
    mlflow_store: str, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    long = "ä" * 6001
    log(recorded, events.Params, {"deep/text": long, "just": "x" * 6000})
    log(recorded, events.Params, {"deep/text": long})
    log(recorded, events.Tags, {"note": "y" * 8001})
    recorded.end()
    found = the_run(mlflow_store, recorded)
    assert "params/deep/text.txt" in found.data.params["deep/text"]
    assert found.data.params["just"] == "x" * 6000
    assert content_of(found, "params/deep/text.txt").decode() == long
    assert content_of(found, "tags/note.txt") == b"y" * 8001
    assert "pte.param.deep/text" not in found.data.tags
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 2


def test_pictures_texts_and_artifacts_become_artifacts(mlflow_store: str, recorded: Recorded) -> None:
    directory = recorded.directory
    (directory / "picture.png").write_bytes(b"a picture")
    (directory / "folder").mkdir()
    (directory / "folder" / "file").write_text("a file")
    log(recorded, events.Figure, "val/confusion", 3, "picture.png")
    log(recorded, events.Figure, "val/confusion", 3, "picture.png")
    log(recorded, events.Text, "notes/one", 2, "some *text*")
    log(recorded, events.Artifact, "picture.png", "a b/c")
    log(recorded, events.Artifact, "folder", "")
    recorded.end()
    found = the_run(mlflow_store, recorded)
    pictures = artifacts_of(mlflow_store, found, "images")
    assert len(pictures) == 2
    assert all(path.startswith("images/val~confusion+step+3+timestamp+") for path in pictures)
    assert {content_of(found, path) for path in pictures} == {b"a picture"}
    assert content_of(found, "figures/val/confusion.png") == b"a picture"
    assert found.data.tags["mlflow.loggedImages"] == "True"
    assert content_of(found, "text/notes/one/step_2.md") == b"some *text*"
    assert content_of(found, "a b/c/picture.png") == b"a picture"
    assert content_of(found, "folder/file") == b"a file"


def test_datasets_become_inputs_once(mlflow_store: str, recorded: Recorded) -> None:
    digest = "0123456789" * 6
    for _ in range(2):
        log(recorded, events.Dataset, "digits", digest, "train", "https://example.org/digits")
    log(recorded, events.Dataset, "digits", digest[::-1], "val", "")
    recorded.end()
    inputs = the_run(mlflow_store, recorded).inputs.dataset_inputs
    found = {one.tags[0].value: (one.dataset.name, one.dataset.digest, one.dataset.source) for one in inputs}
    assert found == {
        "train": ("digits", digest[:36], '{"url": "https://example.org/digits"}'),
        "val": ("digits", digest[::-1][:36], '{"uri": ""}'),
    }
    assert len(inputs) == 2


def test_a_file_that_is_gone_is_set_aside_and_the_rest_goes_on(mlflow_store: str, recorded: Recorded) -> None:
    log(recorded, events.Figure, "gone", 1, "gone.png")
    log(recorded, events.Metrics, 1, {"a": 1.0})
    recorded.end()
    channel = Channel(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert channel.progress.set_aside == {"2": "gone.png is gone"}
    assert points_of(mlflow_store, the_run(mlflow_store, recorded)) == {"a": [(1, 1.0)]}


def test_an_event_that_mlflow_refuses_spoils_no_other(mlflow_store: str, recorded: Recorded) -> None:
    for step in range(20):
        log(recorded, events.Metrics, step, {"a": float(step)})
        if step in (3, 11):
            recorded.journal.append(events.Metrics, step, {"early": 1.0}, at=-5.0)  # MLflow knows no time before 1970
    log(recorded, events.Metrics, 2**70, {"far": 1.0})  # no event at all: as damage, it is skipped before
    recorded.end()
    points = points_of(mlflow_store, the_run(mlflow_store, recorded))
    assert points == {"a": [(step, float(step)) for step in range(20)]}
    channel = Channel(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert len(channel.progress.set_aside) == 2


def test_histograms_are_skipped_and_said_once(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    for step in range(3):
        log(recorded, events.Histogram, "weights", step, [0.0, 1.0], [1.0], 0.0, 1.0, 1.0, 1.0)
    recorded.end()
    assert len([record for record in caplog.records if "histogram" in record.getMessage()]) == 1


def test_storage_that_cannot_be_used_keeps_no_metrics_from_mlflow(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    client.create_experiment("mine", artifact_location="nowhere://bucket/folder")
    recorded = Recorded(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    assert points_of(mlflow_store, the_run(mlflow_store, recorded)) == {"a": [(1, 1.0)]}


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_deleted_run_closes_the_sink(mlflow_store: str, tmp_path: Path, what: str) -> None:
    recorded = Recorded(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    client = MlflowClient(mlflow_store)
    found = the_run(mlflow_store, recorded)
    if what == "run":
        client.delete_run(found.info.run_id)
    else:
        client.delete_experiment(found.info.experiment_id)
    recorded.log(2, {"a": 2.0})
    recorded.end()
    channel = Channel(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert channel.is_closed
    assert "was deleted" in (channel.progress.closed or "")
    assert not runs_of(mlflow_store, recorded)


def test_a_deleted_experiment_closes_the_sink_before_a_run_is_made(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    client.delete_experiment(client.create_experiment("mine"))
    recorded = Recorded(tmp_path / "run", MLflowSink(mlflow_store, "mine"))
    recorded.deliver()
    channel = Channel(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert "'mine' was deleted" in (channel.progress.closed or "")


def test_experiments_that_we_make_or_begin_open_as_training(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    for name in ("Default", "made by us"):
        Recorded(tmp_path / name, MLflowSink(mlflow_store, name)).end()
        tags = client.get_experiment_by_name(name).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_an_experiment_that_others_use_is_left_as_it_is(mlflow_store: str, tmp_path: Path) -> None:
    client = MlflowClient(mlflow_store)
    client.create_run("0")
    Recorded(tmp_path / "run", MLflowSink(mlflow_store)).end()
    assert "mlflow.experimentKind" not in client.get_experiment("0").tags


def test_a_second_run_of_ours_is_retired(mlflow_store: str, recorded: Recorded) -> None:
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    first = the_run(mlflow_store, recorded)
    client = MlflowClient(mlflow_store)
    ghost = client.create_run("0", tags={"pte.run_id": recorded.manifest.id}).info.run_id
    channel = Channel(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    recorded.log(2, {"a": 2.0})
    channel.pump()
    assert the_run(mlflow_store, recorded).info.run_id == first.info.run_id
    retired = client.get_run(ghost)
    assert (retired.info.status, retired.info.lifecycle_stage) == ("KILLED", "deleted")
    assert retired.data.tags["pte.duplicate_of"] == first.info.run_id
    assert points_of(mlflow_store, first)["a"] == [(1, 1.0), (2, 2.0)]
