"""Throughput of delivery to MLflow, compared with calls of ``log_batch``.

``python benchmarks/mlflow_speed.py``

A round delivers a journal with rows of five values, and sends the same data points by ``log_batch`` with 1,000 metrics
per call, each to a new run. Printed are data points per second for both and their ratio, with a SQLite store and over
HTTP.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import mlflow
from _measure import Figure, interleave, ratios
from mlflow.entities import Metric

from pte_backends.mlflow import MLflowSink
from pte_tracking.testing import RecordedRun
from tests import servers

ROUNDS = 7
ROWS = 4000
KEYS = [f"train/{name}" for name in "abcde"]


def deliver_journal(uri: str, folder: Path) -> float:
    """Return the seconds to deliver a journal, without the time to connect."""
    recorded = RecordedRun(folder / uuid.uuid4().hex, MLflowSink(uri))
    recorded.deliver()  # connect
    for step in range(ROWS):
        recorded.log(step, dict.fromkeys(KEYS, step / 7))
    start = time.perf_counter()
    recorded.deliver()
    return time.perf_counter() - start


def log_batches(uri: str) -> float:
    """Return the seconds to send the same data points in requests of 1,000."""
    client = mlflow.MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(key, step / 7, now + step, step) for step in range(ROWS) for key in KEYS]
    start = time.perf_counter()
    for first in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics[first : first + 1000])
    return time.perf_counter() - start


def compare(name: str, uri: str, folder: Path) -> None:
    deliver_journal(uri, folder)
    log_batches(uri)
    times = interleave(
        ROUNDS, {"delivery": lambda: deliver_journal(uri, folder), "log_batch": lambda: log_batches(uri)}
    )
    delivery_rate, log_batch_rate = (ROWS * len(KEYS) / statistics.median(seconds) for seconds in times.values())
    print(f"{name}: delivery {delivery_rate:,.0f} points/s, log_batch {log_batch_rate:,.0f} points/s")
    rate_ratios = ratios(times["log_batch"], times["delivery"])
    Figure(f"rows per second to MLflow, {name}", "log_batch of 1,000 metrics", rate_ratios, ">= 0.9").publish()


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        for subdirectory in ("store", "server"):
            (folder / subdirectory).mkdir()
        store = f"sqlite:///{servers.copy_store(template, folder / 'store')}"
        compare("sqlite", store, folder)
        with servers.mlflow_server(folder / "server", template) as uri:
            compare("HTTP", uri, folder)


if __name__ == "__main__":
    main()
