"""Resources during and after an outage of the MLflow server.

``python benchmarks/outage.py``

A run logs 200,000 data points to MLflow while no server listens at its address. Printed are the CPU usage of the
delivery process during the outage, the memory of the training process and of the delivery process in bytes per data
point, and the data points per second after the server starts. ``slowdown.py`` measures the effect on the training
thread.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from _measure import Figure

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.control import request_retry
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from tests import servers

ROWS, EARLY_ROWS = 40_000, 4_000
VALUES = {f"train/{name}": 0.123456789 for name in "abcde"}
POINTS = (ROWS - EARLY_ROWS) * len(VALUES)
IDLE_SECONDS = 60.0  # covers at least two retries


def log(run: pte.Run, first: int, last: int) -> None:
    for step in range(first, last):
        run.log_metrics(VALUES, step)


def wait_for_rows(run: pte.Run, rows: int) -> None:
    """Wait until a number of rows is delivered."""
    deadline = time.monotonic() + 200
    while Cursor.load(run.directory, "mlflow").seq < rows:
        if time.monotonic() > deadline:
            raise SystemExit(f"Fewer than {rows:,} rows were delivered after 200 s.")
        time.sleep(0.1)


def peak_memory(process: psutil.Process) -> float:
    """Return the peak memory of a process, in bytes."""
    match = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def cpu_seconds(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def measure(directory: Path, server: str) -> None:
    port = servers.free_port()
    run = pte.Run(directory, sinks=[MLflowSink(f"http://127.0.0.1:{port}")], close_timeout=0)
    training_process = psutil.Process()
    log(run, 0, EARLY_ROWS)
    time.sleep(8)  # the first attempt has failed
    holder = lock.holder(directory / DELIVERY_LOCK)
    assert holder is not None
    assert holder.pid is not None
    delivery_process = psutil.Process(holder.pid)
    memory_before = training_process.memory_full_info().uss
    log(run, EARLY_ROWS, ROWS)
    bytes_per_point = (training_process.memory_full_info().uss - memory_before) / POINTS
    start, cpu_before = time.perf_counter(), cpu_seconds(delivery_process)
    time.sleep(IDLE_SECONDS)
    idle_percent = (cpu_seconds(delivery_process) - cpu_before) / (time.perf_counter() - start) * 100
    run.close()
    with servers.Proxy(urlsplit(server).port or 0, listen_on=port):
        request_retry(directory)
        wait_for_rows(run, EARLY_ROWS)
        start, memory_early = time.perf_counter(), peak_memory(delivery_process)
        wait_for_rows(run, ROWS)
        elapsed, memory_late = time.perf_counter() - start, peak_memory(delivery_process)
    Figure("CPU usage of the delivery process during an outage", "% of a core", [idle_percent], "<= 1").publish()
    Figure(
        "memory of the training process during an outage", "bytes per data point", [bytes_per_point], "<= 1"
    ).publish()
    Figure(
        "memory of the delivery process after an outage",
        "bytes per data point",
        [(memory_late - memory_early) / POINTS],
        "<= 20",
    ).publish()
    print(f"delivery after the outage: {POINTS / elapsed:,.0f} data points per second over HTTP")


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        (folder / "server").mkdir()
        with servers.mlflow_server(folder / "server", template) as uri:
            measure(folder / "run", uri)


if __name__ == "__main__":
    main()
