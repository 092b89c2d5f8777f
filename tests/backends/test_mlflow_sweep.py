"""A sweep of short runs that are delivered to MLflow by one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.backlog import backlog
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK, DELIVERY_LOG
from pte_tracking._store.manifest import Manifest
from tests import servers
from tests.deliveries import end_deliveries, living_deliveries
from tests.probe.fixtures import wait_until

pytestmark = pytest.mark.slow
RUNS = 30
MAX_BYTES = 300 << 20


def sweep(directory: Path, *sinks: str | MLflowSink) -> list[pte.Run]:
    runs = []
    for number in range(RUNS):
        with pte.Run(directory / str(number), sinks=list(sinks), close_timeout=0) as run:
            for step in range(1, 11):
                run.log_metrics({"loss": 1 / step}, step)
        runs.append(run)
    return runs


def is_delivered(run: pte.Run) -> bool:
    return backlog(run.directory, Manifest.load(run.directory)) == []


@pytest.fixture(autouse=True)
def _no_processes() -> Iterator[None]:
    end_deliveries()  # of earlier tests
    yield
    end_deliveries()


def test_runs_to_one_local_store_do_not_exhaust_its_connections(tmp_path: Path) -> None:
    servers.make_store(tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    runs = sweep(tmp_path / "runs", MLflowSink(uri))
    (process,) = living_deliveries()
    peak = 0

    def are_delivered() -> bool:
        nonlocal peak
        peak = max(peak, process.memory_full_info().pss)
        return all(map(is_delivered, runs))

    wait_until(are_delivered, 120.0)
    assert peak < MAX_BYTES
    assert all((run.directory / DELIVERY_LOG).read_text() == "" for run in runs)
    stored = MlflowClient(uri).search_runs(["0"], max_results=100)
    assert sorted(found.data.metrics["loss"] for found in stored) == [0.1] * RUNS
    assert {found.info.status for found in stored} == {"FINISHED"}


def test_unfinished_runs_of_an_unavailable_server_need_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = MLflowSink(f"http://127.0.0.1:{servers.free_port()}")
    runs = sweep(tmp_path, "tensorboard", away)
    wait_until(lambda: all("delivery failed" in (run.directory / DELIVERY_LOG).read_text() for run in runs), 60.0)
    assert sum(process.memory_full_info().pss for process in living_deliveries()) < MAX_BYTES
    holders = [lock.holder(run.directory / DELIVERY_LOCK) for run in runs]
    assert {holder and holder.pid for holder in holders} == {process.pid for process in living_deliveries()}


def test_runs_of_two_servers_do_not_share_a_process_with_credentials(tmp_path: Path) -> None:
    """MLflow's client sends the credentials of the environment to every server."""
    runs, ports = [], [servers.free_port(), servers.free_port()]
    for number in range(4):
        uri = f"http://user{number % 2}:password{number % 2}@127.0.0.1:{ports[number % 2]}"
        with pte.Run(tmp_path / str(number), sinks=[MLflowSink(uri)], close_timeout=0) as run:
            run.log_metrics({"loss": 1.0}, 1)
        runs.append(run)
    try:
        wait_until(lambda: all(lock.holder(run.directory / DELIVERY_LOCK) for run in runs), 60.0)
        holders = [lock.holder(run.directory / DELIVERY_LOCK) for run in runs]
        even, odd = ({holder and holder.pid for holder in holders[start::2]} for start in (0, 1))
        assert not even & odd
    finally:
        for name in [name for name in os.environ if name.startswith("PTE_MLFLOW_URI_")]:
            del os.environ[name]
