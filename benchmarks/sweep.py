"""Memory and processor time of the delivery of a sweep: 30 short runs, made one after the other in one process.

``python benchmarks/sweep.py``

The runs log 50 rows each and do not wait for delivery, to TensorBoard and MLflow:

- server is away: all runs are unfinished for 30 seconds
- SQLite: all runs write to one store, until everything is delivered

Measured for all delivery processes together: the highest proportional set size (PSS) in MB, and the CPU usage in
percent of a core while the server is away, including the import of MLflow.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path

from _measure import Figure, format_spread, interleave

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.backlog import backlog
from pte_tracking._store.manifest import Manifest
from tests import servers
from tests.deliveries import end_deliveries, living_deliveries

ROUNDS = 3
RUNS, ROWS = 30, 50
AWAY_SECONDS = 30.0
TIMEOUT_SECONDS = 120.0


def sweep(folder: Path, sink: MLflowSink) -> list[Path]:
    """Make the runs. Return their directories."""
    directories = []
    for _ in range(RUNS):
        directory = Path(tempfile.mkdtemp(dir=folder))
        with pte.Run(directory, sinks=["tensorboard", sink], close_timeout=0) as run:
            for step in range(1, ROWS + 1):
                run.log_metrics({"loss": 1 / step}, step)
        directories.append(directory)
    return directories


def count_unfinished(directories: list[Path]) -> int:
    return sum(bool(backlog(directory, Manifest.load(directory))) for directory in directories)


def measure(folder: Path, sink: MLflowSink, seconds: float) -> tuple[float, float, int]:
    """Return memory in MB, CPU usage in percent, and the number of processes, until all is delivered or for a time."""
    directories = sweep(folder, sink)
    deadline, peak, num_processes, cpu_seconds = time.monotonic() + seconds, 0.0, 0, 0.0
    while count_unfinished(directories) and time.monotonic() < deadline:
        processes = living_deliveries()
        peak = max(peak, sum(process.memory_full_info().pss for process in processes) / 2**20)
        cpu_seconds = sum(sum(process.cpu_times()[:2]) for process in processes)
        num_processes = max(num_processes, len(processes))
        time.sleep(0.2)
    end_deliveries()
    return peak, cpu_seconds / seconds * 100, num_processes


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        store = MLflowSink(f"sqlite:///{template}")
        away = MLflowSink(f"http://127.0.0.1:{servers.free_port()}")
        cases = {
            "server is away": partial(measure, folder, away, AWAY_SECONDS),
            "SQLite": partial(measure, folder, store, TIMEOUT_SECONDS),
        }
        results = interleave(ROUNDS, cases)
    for case, rounds in results.items():
        memory, cpu_percent, num_processes = (list(column) for column in zip(*rounds, strict=True))
        print(f"{case}: {max(num_processes)} processes, memory {format_spread(memory)} MB")
        Figure(f"memory of the delivery of {RUNS} runs: {case}", "MB", memory, "<= 300").publish()
        if case == "server is away":
            Figure(f"CPU usage of the delivery of {RUNS} runs: {case}", "% of a core", cpu_percent, "<= 20").publish()


if __name__ == "__main__":
    main()
