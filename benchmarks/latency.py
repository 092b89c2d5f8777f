"""Latency until a logged value is visible.

``python benchmarks/latency.py``

The latency is the number of seconds from an append until another process can read the value from the MLflow store
(SQLite), and from the event file of TensorBoard.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from _measure import Figure

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from tests import servers


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
        for backend, seconds in measure_latency(folder, store).items():
            Figure(f"latency from append to {backend}", "s", seconds, "<= 2").publish()


if __name__ == "__main__":
    main()
