"""What tracking costs the training in each iteration, and how long a value takes until it can be seen.

``python benchmarks/tracking_cost.py``: a loop whose body is 0.5 ms of torch work reports five tensors in each
iteration, and each iteration is a row to the JSON log, TensorBoard and MLflow (sqlite). The body is not counted.
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
from _measure import Figure, in_turns

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions
from tests import servers

ROUNDS = 7
ITERATIONS = 2000


def body(x: torch.Tensor) -> torch.Tensor:
    """About half a millisecond of torch work."""
    end = time.perf_counter() + 0.0005
    while time.perf_counter() < end:
        x = x @ x.T / 100
    return x.mean()


def per_iteration(folder: Path, store: str) -> tuple[float, float]:
    """Microseconds that an iteration takes beyond its body: median and 99th percentile."""
    outside = []
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
            begin = time.perf_counter()
            with manager.run_iteration():
                start = time.perf_counter()
                value = body(x)
                values = {f"train/{name}": value + index for index, name in enumerate("abcde")}
                spent = time.perf_counter() - start
                pte.report(values)
            outside.append((time.perf_counter() - begin - spent) * 1e6)
    steady = outside[200:]
    return statistics.median(steady), statistics.quantiles(steady, n=100)[-1]


def until_visible(folder: Path, store: str) -> dict[str, list[float]]:
    """Seconds from an append until another process would see the value in MLflow's store and in an event file."""
    from mlflow.tracking import MlflowClient
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    client = MlflowClient(store)
    waits: dict[str, list[float]] = {"MLflow": [], "TensorBoard": []}
    with pte.Run(folder / "visible", sinks=["tensorboard", MLflowSink(store)]) as run:
        run.log_metrics({"value": 0.0}, 0)
        end = time.monotonic() + 60
        while not (runs := client.search_runs(["0"], f"tags.`pte.run_id` = '{run.id}'")) and time.monotonic() < end:
            time.sleep(0.5)
        time.sleep(2)
        found = runs[0].info.run_id
        loaders = [EventFileLoader(str(path)) for path in run.directory.glob("events.out.tfevents.*")]
        for step in range(1, 12):
            begin = time.perf_counter()
            run.log_metrics({"value": float(step)}, step)
            waiting = {"MLflow", "TensorBoard"}
            while waiting and time.perf_counter() - begin < 20:
                seen = set()
                if any(event.step == step for loader in loaders for event in loader.Load()):
                    seen.add("TensorBoard")
                if "MLflow" in waiting and client.get_run(found).data.metrics.get("value") == step:
                    seen.add("MLflow")
                for backend in seen & waiting:
                    waits[backend].append(time.perf_counter() - begin)
                waiting -= seen
                time.sleep(0.01)
    return waits


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers.make_store(folder / "template.db")
        store = f"sqlite:///{servers.copy_store(folder / 'template.db', folder)}"
        (rounds,) = in_turns(ROUNDS, {"": partial(per_iteration, folder, store)}).values()
        medians, p99s = (list(column) for column in zip(*rounds, strict=True))
        work = "a row of 5 values to all three, by the engine"
        Figure(f"{work}: median", "us", medians, "<= 15").tell()
        Figure(f"{work}: 99th percentile", "us", p99s, "<= 100").tell()
        for backend, seconds in until_visible(folder, store).items():
            Figure(f"from append to visible in {backend}", "s", seconds, "<= 2").tell()


if __name__ == "__main__":
    main()
