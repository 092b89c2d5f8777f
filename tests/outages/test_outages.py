"""Training during MLflow outages: the training ends normally, and each event is delivered once afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MLflowRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.control import request_retry
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.stopping import stop_delivery
from pte_tracking._delivery.sync import sync
from pte_tracking._runs.run import Run
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking._store.manifest import Manifest
from tests.outages.training import get_value
from tests.servers import Fate, Proxy, free_port

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]

ITERATIONS = 300
SCRIPT = Path(__file__).with_name("training.py")


@pytest.fixture
def experiment(mlflow_server: str) -> str:
    name = uuid.uuid4().hex
    MlflowClient(mlflow_server).create_experiment(name)
    return name


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[Proxy]:
    with Proxy(urlsplit(mlflow_server).port or 0) as server_proxy:
        yield server_proxy


def train(directory: Path, uri: str, experiment: str, ending: str = "close") -> list[str]:
    """Run the training script to its end, and return the lines of its standard error."""
    command = [sys.executable, str(SCRIPT), str(directory), uri, experiment, str(ITERATIONS), ending]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == (-9 if ending == "kill" else 0), done.stderr
    return done.stderr.splitlines()


def get_run(uri: str, experiment: str) -> MLflowRun | None:
    client = MlflowClient(uri)
    experiment_info = client.get_experiment_by_name(experiment)
    assert experiment_info is not None
    runs: list[MLflowRun] = client.search_runs([experiment_info.experiment_id])
    assert len(runs) <= 1
    return runs[0] if runs else None


def check_mlflow(uri: str, experiment: str, last: int, status: str) -> None:
    """Check that MLflow contains each data point once and each snapshot as a checkpoint."""
    run = get_run(uri, experiment)
    assert run is not None
    assert run.info.status == status
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(i, get_value(i)) for i in range(1, last + 1)]
    models = MlflowClient(uri).search_logged_models([run.info.experiment_id])
    third = ITERATIONS // 3
    assert {model.name for model in models} == {f"snapshot_iter_{step}" for step in range(third, last + 1, third)}
    assert {model.status for model in models} == {"READY"}


def check_files(directory: Path, last: int) -> None:
    """Check the JSON log and the TensorBoard file, whose delivery does not depend on the server."""
    end = time.monotonic() + 60
    while any(sink.key == "tensorboard" for sink in backlog(directory, Manifest.load(directory))):
        assert time.monotonic() < end
        time.sleep(0.1)
    rows = json.loads((directory / "log").read_text())
    assert [(row["iteration"], row["loss"]) for row in rows] == [(i, get_value(i)) for i in range(1, last + 1)]
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, last + 1))


def deliver_pending(directory: Path) -> None:
    end = time.monotonic() + 90
    while undelivered := sync(directory, timeout=20):
        assert time.monotonic() < end, undelivered


def delay_response(line: str) -> Fate:
    time.sleep(0.3)
    return "pass"


def make_fate(fate: Fate) -> Callable[[str], Fate]:
    return lambda line: fate


@pytest.mark.parametrize("failure", ["fail", "busy", "cut", "lose", "hang"])
def test_delivery_failing_server_is_completed_by_sync_without_duplicates(
    failure: Fate, proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path
) -> None:
    proxy.fate = make_fate(failure)
    log_lines = train(tmp_path / "run", proxy.uri, experiment)
    assert len([line for line in log_lines if "Not yet delivered" in line and "pte-tracking sync" in line]) == 1
    assert len(log_lines) <= 3, log_lines
    check_files(tmp_path / "run", ITERATIONS)
    proxy.fate = make_fate("pass")
    deliver_pending(tmp_path / "run")
    check_mlflow(mlflow_server, experiment, ITERATIONS, "FINISHED")


def test_delivery_slow_server_completes_after_training_ends(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path
) -> None:
    proxy.fate = delay_response
    log_lines = train(tmp_path / "run", proxy.uri, experiment)
    warnings = [line for line in log_lines if not line.startswith(("tensorboard: ", "mlflow: ", "Waiting up to "))]
    assert len([line for line in log_lines if "Not yet delivered" in line]) == len(warnings) == 1
    check_files(tmp_path / "run", ITERATIONS)
    end = time.monotonic() + 60
    while (run := get_run(mlflow_server, experiment)) is None or run.info.status != "FINISHED":
        assert time.monotonic() < end
        time.sleep(0.5)
    check_mlflow(mlflow_server, experiment, ITERATIONS, "FINISHED")


def test_delivery_intermittent_failures_lose_and_duplicate_nothing(
    proxy: Proxy, mlflow_server: str, experiment: str, tmp_path: Path
) -> None:
    fates: list[Fate] = ["pass", "lose", "fail", "pass", "cut", "overload", "pass", "busy"]
    proxy.fate = lambda line: fates[len(proxy.requests) % len(fates)]
    train(tmp_path / "run", proxy.uri, experiment)
    proxy.fate = make_fate("pass")
    deliver_pending(tmp_path / "run")
    check_files(tmp_path / "run", ITERATIONS)
    check_mlflow(mlflow_server, experiment, ITERATIONS, "FINISHED")


@pytest.mark.parametrize(("ending", "last", "status"), [("close", 300, "FINISHED"), ("kill", 150, "KILLED")])
def test_delivery_unreachable_server_is_completed_once_available(
    ending: str, last: int, status: str, mlflow_server: str, experiment: str, tmp_path: Path
) -> None:
    port = free_port()
    train(tmp_path / "run", f"http://127.0.0.1:{port}", experiment, ending)
    with Proxy(urlsplit(mlflow_server).port or 0, listen_on=port):
        deliver_pending(tmp_path / "run")
    check_files(tmp_path / "run", last)
    check_mlflow(mlflow_server, experiment, last, status)


def test_delivery_million_pending_points_keep_memory_constant(tmp_path: Path) -> None:
    values = dict.fromkeys("abcde", 0.123456789)
    run = Run(tmp_path / "run", sinks=[MLflowSink(f"http://127.0.0.1:{free_port()}")], close_timeout=0)

    def measure_memory(first: int, last: int) -> list[int]:
        """Return the memory in bytes of the training and the delivery process after a failed delivery."""
        for step in range(first, last):
            run.log_metrics(values, step)
        before, end = time.time(), time.monotonic() + 60
        while (Cursor.load(run.directory, "mlflow").error_time or 0) < before:
            assert time.monotonic() < end
            request_retry(run.directory)
            time.sleep(0.5)
        holder = lock.holder(run.directory / DELIVERY_LOCK)
        assert holder is not None
        assert holder.pid is not None
        return [psutil.Process(pid).memory_full_info().uss for pid in (os.getpid(), holder.pid)]

    measure_memory(0, 1000)
    early = measure_memory(1000, 10_000)
    late = measure_memory(10_000, 200_000)
    run.close()
    assert stop_delivery(run.directory)
    assert (run.directory / "journal.jsonl").stat().st_size > 20 << 20
    assert all(after - before < 5 << 20 for before, after in zip(early, late, strict=True))
