"""How fast a journal reaches MLflow, beside a bare loop of ``log_batch`` with 1000 metrics.

``python benchmarks/mlflow_speed.py`` prints points per second and their ratio, on sqlite and over HTTP: rounds of both
in turn, each into a run of its own, with the median and the range of the ratios. A round delivers rows of five values.
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
from pte_tracking.testing import Recorded
from tests import servers

ROUNDS = 7
ROWS = 4000
KEYS = [f"train/{name}" for name in "abcde"]


def deliver_journal(uri: str, folder: Path) -> float:
    """Seconds that the journal takes, from its first byte on."""
    recorded = Recorded(folder / uuid.uuid4().hex, MLflowSink(uri))
    recorded.deliver()  # connects
    for step in range(ROWS):
        recorded.log(step, dict.fromkeys(KEYS, step / 7))
    start = time.perf_counter()
    recorded.deliver()
    return time.perf_counter() - start


def log_batches(uri: str) -> float:
    """Seconds that the same points take in requests of 1000."""
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
    Figure(f"rows a second to MLflow, {name}", "bare log_batch of 1000", rate_ratios, ">= 0.9").publish()


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
