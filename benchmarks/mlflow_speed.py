"""Throughput of delivery to MLflow, compared with calls of ``log_batch``.

``python benchmarks/mlflow_speed.py``

A round delivers a journal with rows of five values, and sends the same data points by ``log_batch`` with 1,000 metrics
per call, each to a new run. Printed are data points per second for both and their ratio, with a SQLite store and over
HTTP, and the same for rows with 10,000 values. Garbage is collected as in a delivery process while a journal is
delivered, and with the defaults of Python otherwise.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
from _measure import Figure, format_spread, interleave, ratios
from mlflow.entities import Metric

from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.garbage import collect_garbage_rarely
from pte_tracking.testing import RecordedRun
from tests import servers

ROUNDS = 7


class Rows(NamedTuple):
    """Rows of a journal.

    Attributes:
        count: Number of rows.
        keys: Keys of each row.
    """

    count: int
    keys: Sequence[str]


SHORT_ROWS = Rows(4000, [f"train/{name}" for name in "abcde"])
LONG_ROWS = Rows(2, [f"layer {number // 10}/weight {number % 10}" for number in range(10_000)])


def deliver_journal(uri: str, folder: Path, rows: Rows) -> float:
    """Return the seconds to deliver a journal, without the time to connect."""
    recorded = RecordedRun(folder / uuid.uuid4().hex, MLflowSink(uri))
    recorded.deliver()  # connect
    for step in range(rows.count):
        recorded.log(step, dict.fromkeys(rows.keys, step / 7))
    thresholds = gc.get_threshold()
    collect_garbage_rarely()
    start = time.perf_counter()
    recorded.deliver()
    seconds = time.perf_counter() - start
    gc.set_threshold(*thresholds)
    return seconds


def log_batches(uri: str, rows: Rows) -> float:
    """Return the seconds to send the same data points in requests of 1,000."""
    client = mlflow.MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(key, step / 7, now + step, step) for step in range(rows.count) for key in rows.keys]
    start = time.perf_counter()
    for first in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics[first : first + 1000])
    return time.perf_counter() - start


def compare(name: str, uri: str, folder: Path, rows: Rows) -> None:
    deliver_journal(uri, folder, rows)
    log_batches(uri, rows)
    times = interleave(
        ROUNDS,
        {"delivery": lambda: deliver_journal(uri, folder, rows), "log_batch": lambda: log_batches(uri, rows)},
    )
    rates = [[rows.count * len(rows.keys) / seconds for seconds in results] for results in times.values()]
    print(f"{name}: delivery {format_spread(rates[0])} points/s, log_batch {format_spread(rates[1])} points/s")
    rate_ratios = ratios(times["log_batch"], times["delivery"])
    Figure(f"rows per second to MLflow, {name}", "log_batch of 1,000 metrics", rate_ratios, ">= 1.0").publish()
    if rows is LONG_ROWS:
        Figure(f"rate to MLflow, {name}", "data points per second", rates[0], ">= 5000").publish()


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        for subdirectory in ("store", "server"):
            (folder / subdirectory).mkdir()
        store = f"sqlite:///{servers.copy_store(template, folder / 'store')}"
        compare("sqlite", store, folder, SHORT_ROWS)
        compare("sqlite, 10,000 values per row", store, folder, LONG_ROWS)
        with servers.mlflow_server(folder / "server", template) as uri:
            compare("HTTP", uri, folder, SHORT_ROWS)
            compare("HTTP, 10,000 values per row", uri, folder, LONG_ROWS)


if __name__ == "__main__":
    main()
