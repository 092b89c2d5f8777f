"""Cost of tracking per iteration, and latency until a value is visible.

``python benchmarks/tracking_cost.py``

An iteration consists of 0.5 ms of torch work, which is not counted, and a report of five tensors. Each iteration writes
a row to the JSON log, TensorBoard, and MLflow (SQLite store).

- median, 99th percentile: microseconds per iteration in addition to the work
- latency: seconds from an append until another process can read the value from the MLflow store and the event file
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path

import torch
from _measure import Figure, interleave

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions
from tests import servers

ROUNDS = 7
ITERATIONS = 2000


def work(x: torch.Tensor) -> torch.Tensor:
    """Run about half a millisecond of torch work."""
    deadline = time.perf_counter() + 0.0005
    while time.perf_counter() < deadline:
        x = x @ x.T / 100
    return x.mean()


def measure_iteration(folder: Path, store: str) -> tuple[float, float]:
    """Return median and 99th percentile of the microseconds per iteration in addition to the work."""
    overheads = []
    x = torch.rand(64, 64)
    with pte.ExtensionsManager(
        {},
        1,
        [extensions.LogReport(trigger=(1, "iteration"))],
        iters_per_epoch=ITERATIONS,
        out_dir=folder / uuid.uuid4().hex,
        sinks=["json", "tensorboard", MLflowSink(store)],
    ) as manager:
        for _ in range(ITERATIONS):
            iteration_start = time.perf_counter()
            with manager.run_iteration():
                start = time.perf_counter()
                value = work(x)
                values = {f"train/{name}": value + index for index, name in enumerate("abcde")}
                work_seconds = time.perf_counter() - start
                pte.report(values)
            overheads.append((time.perf_counter() - iteration_start - work_seconds) * 1e6)
    steady = overheads[200:]
    return statistics.median(steady), statistics.quantiles(steady, n=100)[-1]


def measure_latency(folder: Path, store: str) -> dict[str, list[float]]:
    """Return the seconds from an append until a value is visible in the MLflow store and in the event file."""
    from mlflow.tracking import MlflowClient
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    client = MlflowClient(store)
    latencies: dict[str, list[float]] = {"MLflow": [], "TensorBoard": []}
    with pte.Run(folder / "visible", sinks=["tensorboard", MLflowSink(store)]) as run:
        run.log_metrics({"value": 0.0}, 0)
        deadline = time.monotonic() + 60
        while (
            not (runs := client.search_runs(["0"], f"tags.`pte.run_id` = '{run.id}'")) and time.monotonic() < deadline
        ):
            time.sleep(0.5)
        time.sleep(2)
        run_id = runs[0].info.run_id
        loaders = [EventFileLoader(str(path)) for path in run.directory.glob("events.out.tfevents.*")]
        for step in range(1, 12):
            start = time.perf_counter()
            run.log_metrics({"value": float(step)}, step)
            missing = {"MLflow", "TensorBoard"}
            while missing and time.perf_counter() - start < 20:
                visible = set()
                if any(event.step == step for loader in loaders for event in loader.Load()):
                    visible.add("TensorBoard")
                if "MLflow" in missing and client.get_run(run_id).data.metrics.get("value") == step:
                    visible.add("MLflow")
                for backend in visible & missing:
                    latencies[backend].append(time.perf_counter() - start)
                missing -= visible
                time.sleep(0.01)
    return latencies


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers.make_store(folder / "template.db")
        store = f"sqlite:///{servers.copy_store(folder / 'template.db', folder)}"
        (rounds,) = interleave(ROUNDS, {"": partial(measure_iteration, folder, store)}).values()
        medians, p99s = (list(column) for column in zip(*rounds, strict=True))
        label = "a row of 5 values to three sinks, manager and LogReport"
        Figure(f"{label}: median", "us", medians, "<= 15").publish()
        Figure(f"{label}: 99th percentile", "us", p99s, "<= 100").publish()
        for backend, seconds in measure_latency(folder, store).items():
            Figure(f"latency from append to {backend}", "s", seconds, "<= 2").publish()


if __name__ == "__main__":
    main()
