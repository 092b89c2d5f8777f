"""Delivery to an MLflow server that loses responses, fails, hangs, or is unavailable."""

from __future__ import annotations

import hashlib
import itertools
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun
from tests.mlflow_contract import MLflowServerContract, read_experiment_points
from tests.servers import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]


def find_runs(uri: str, experiment: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(uri)
    tracked_runs: list[Run] = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], "", view)
    return tracked_runs


@pytest.fixture
def experiment() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    with Proxy(urlsplit(mlflow_server).port or 0) as running_proxy:
        yield running_proxy


class TestContract(MLflowServerContract):
    @pytest.fixture
    def uri(self, mlflow_server: str) -> str:
        return mlflow_server


def test_artifacts_are_uploaded_through_server(mlflow_server: str, experiment: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_server, experiment))
    (recorded.directory / "picture.png").write_bytes(b"a picture")
    recorded.journal.append(events.Figure, "ü:1/b", 3, "picture.png")
    recorded.journal.append(events.Params, {"x:y/ü z": "v" * 7000})
    recorded.end()
    (run,) = find_runs(mlflow_server, experiment)
    client = MlflowClient(mlflow_server)
    pictures = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert len(pictures) == 2
    for path in pictures:
        assert Path(client.download_artifacts(run.info.run_id, path, str(tmp_path))).read_bytes() == b"a picture"
    (folder,) = client.list_artifacts(run.info.run_id, "params")
    (text,) = client.list_artifacts(run.info.run_id, folder.path)
    assert Path(client.download_artifacts(run.info.run_id, text.path, str(tmp_path))).read_text() == "v" * 7000


def deliver_with_retries(recorded: RecordedRun) -> None:
    """Deliver with retries, as the delivery process does."""
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    for _ in range(6):
        try:
            while consumer.deliver_next():
                pass
            consumer.finish("FINISHED")
        except Exception as error:
            consumer.record_failure(error)
        else:
            return
    pytest.fail(f"not delivered: {consumer.cursor.error}")


@pytest.mark.parametrize("fate", ["lose", "cut", "fail"])
@pytest.mark.parametrize(
    "request_line",
    ["experiments/get-by-name", "runs/create", "runs/search", "runs/log-batch", "runs/get", "runs/update"],
)
def test_failed_response_causes_no_loss_or_duplicates(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path, request_line: str, fate: str
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, experiment))
    proxy.once(request_line, fate)  # type: ignore[arg-type]
    recorded.log(0, {"a": 0.0}, epoch=0)
    deliver_with_retries(recorded)  # creates the MLflow run
    for step in (1, 2):
        recorded.log(step, {"a": float(step)}, epoch=step)
    recorded.journal.append(events.RunEnded, "FINISHED", None)
    deliver_with_retries(recorded)  # finds it
    assert any(request_line in line for line in proxy.requests)
    expected = [(step, float(step)) for step in range(3)]
    assert read_experiment_points(mlflow_server, experiment) == {"a": expected, "epoch": expected}
    (run,) = find_runs(mlflow_server, experiment)
    assert run.info.status == "FINISHED"


def test_run_created_without_response_is_reused(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, experiment))
    recorded.log(1, {"a": 1.0})
    proxy.once("runs/create", "lose")
    with pytest.raises(ConnectionError):
        recorded.deliver()
    deliver_with_retries(recorded)
    assert len(find_runs(mlflow_server, experiment, ViewType.ALL)) == 1


def test_truncated_search_response_creates_no_second_run(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, experiment))
    recorded.log(1, {"a": 1.0})
    recorded.deliver(save_cursor=False)
    proxy.once("runs/search", "cut")
    deliver_with_retries(recorded)
    assert len(find_runs(mlflow_server, experiment, ViewType.ALL)) == 1


def test_hanging_server_request_times_out(
    proxy: Proxy, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, experiment))
    proxy.fate = lambda _: "hang"
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="is not reachable"):
        recorded.deliver()
    assert time.monotonic() - start < 30  # With MLflow's defaults a request ends after 16 minutes.
    proxy.fate = lambda _: "pass"
    recorded.log(1, {"a": 1.0})
    deliver_with_retries(recorded)


def test_server_without_logged_models_receives_other_events(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, experiment))
    proxy.fate = lambda line: "miss" if "logged-models" in line else "pass"
    for step in (1, 2):
        data = b"state %d" % step
        (recorded.directory / f"snapshot_{step}").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        recorded.journal.append(events.Checkpoint, f"snapshot_{step}", step, digest, len(data))
        recorded.journal.append(events.CheckpointRemoved, f"snapshot_{step}", step)
    recorded.log(3, {"a": 3.0})
    recorded.end()
    assert read_experiment_points(mlflow_server, experiment) == {"a": [(3, 3.0)]}
    assert len([record for record in caplog.records if "checkpoints" in record.getMessage()]) == 1


def test_active_run_sends_at_most_one_batch_per_second(proxy: Proxy, experiment: str, tmp_path: Path) -> None:
    def batch_requests() -> int:
        return len([line for line in proxy.requests if "runs/log-batch" in line])

    start_time = time.monotonic()
    with pte.Run(tmp_path / "run", sinks=[MLflowSink(proxy.uri, experiment)]) as run:
        steps = itertools.count()
        while batch_requests() < 5 and time.monotonic() < start_time + 60:
            run.log_metrics({"a": 1.0}, next(steps))
            time.sleep(0.01)
    assert 5 <= batch_requests() <= time.monotonic() - start_time + 2


def test_metrics_logged_during_outage_are_delivered(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, experiment))
    recorded.log(0, {"a": 0.0})
    recorded.deliver()
    port = int(proxy.uri.rpartition(":")[2])
    proxy.close()
    for step in range(1, 50):
        recorded.log(step, {"a": float(step)})
    with pytest.raises(ConnectionError):
        recorded.deliver()
    with Proxy(urlsplit(mlflow_server).port or 0, listen_on=port):
        deliver_with_retries(recorded)
    assert read_experiment_points(mlflow_server, experiment)["a"] == [(step, float(step)) for step in range(50)]


def test_new_run_in_existing_experiment_needs_six_requests(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path
) -> None:
    MlflowClient(mlflow_server).create_experiment(experiment, tags={"mlflow.experimentKind": "custom"})
    recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, experiment))
    recorded.journal.append(events.Params, {"rate": 0.1})
    recorded.log(1, {"a": 1.0})
    recorded.deliver()
    endpoints = [line.split()[1].partition("mlflow/")[2].partition("?")[0] for line in proxy.requests]
    assert endpoints == [
        "experiments/get-by-name",
        "runs/search",
        "runs/search",  # An empty response may be truncated.
        "runs/create",
        "runs/search",  # A repeated request may have created two runs.
        "runs/log-batch",
    ]
    (run,) = find_runs(mlflow_server, experiment)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"rate": "0.1"}
