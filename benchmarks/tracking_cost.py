"""What tracking costs the training: per iteration, at import, beside it, and until a value can be seen.

``python benchmarks/tracking_cost.py`` prints one figure a line. A loop whose body is 0.5 ms of torch work reports five
tensors in each iteration, and each iteration is a row to the JSON log, TensorBoard and MLflow (sqlite).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import pte_tracking as pte
from pte_mlflow import MLflowSink
from pte_tracking import extensions
from pte_tracking.runs import lock
from pte_tracking.runs.layout import DELIVERY_LOCK

ITERATIONS = 4000


def body(x: torch.Tensor) -> torch.Tensor:
    """About half a millisecond of torch work."""
    end = time.perf_counter() + 0.0005
    while time.perf_counter() < end:
        x = x @ x.T / 100
    return x.mean()


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(int(len(values) * percent / 100), len(values) - 1)]


def per_iteration(folder: Path) -> None:
    """Microseconds that an iteration takes beyond its body, by the clock around both."""
    manager = pte.ExtensionsManager(
        {},
        1,
        [extensions.LogReport(trigger=(1, "iteration"))],
        iters_per_epoch=ITERATIONS + 1,  # so that the run and its delivery are still there in the end
        out_dir=folder / "result",
        sinks=["json", "tensorboard", MLflowSink(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")],
    )
    x = torch.rand(64, 64)
    outside = []
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
    print(
        f"per iteration beyond the body: median {statistics.median(steady):.1f} us, p99 {percentile(steady, 99):.1f} us"
    )
    print(f"the first iteration, which opens the run: {outside[0] / 1000:.1f} ms")
    print(f"the delivery process with TensorBoard and MLflow: {resident(folder / 'result'):.0f} MB at most")
    manager.close()


def resident(run: Path) -> float:
    """The most memory (MB) that the delivery process of a run had."""
    time.sleep(3)
    holder = lock.holder(run / DELIVERY_LOCK)
    if holder is None:
        return float("nan")
    status = Path(f"/proc/{holder.split()[0]}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def tensorboard_alone(folder: Path) -> None:
    with pte.Run(folder / "tensorboard", sinks=["tensorboard"]) as run:
        for step in range(1000):
            run.log_metrics({"a": 1.0, "b": 2.0}, step)
        print(f"the delivery process with TensorBoard alone: {resident(run.directory):.0f} MB at most")


def until_visible(folder: Path) -> None:
    """Seconds from an append until another process would see the value in MLflow's store and in an event file."""
    from mlflow.tracking import MlflowClient
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    waits: dict[str, list[float]] = {"MLflow": [], "TensorBoard": []}
    with pte.Run(folder / "visible", sinks=["tensorboard", MLflowSink(tracking_uri=uri)]) as run:
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
    for backend, seconds in waits.items():
        p50 = statistics.median(seconds)
        print(f"from append to visible in {backend}: median {p50:.2f} s, worst {max(seconds):.2f} s")


def import_time() -> None:
    """Milliseconds that ``import pte_tracking`` adds to a start of Python; the median of nine, interleaved."""
    bare, ours = [], []
    for _ in range(9):
        for times, code in ((bare, "pass"), (ours, "import pte_tracking")):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append((time.perf_counter() - begin) * 1000)
    print(f"import pte_tracking: {statistics.median(ours) - statistics.median(bare):.0f} ms")


def main() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # MLflow makes a new sqlite store in seconds of migrations, which are not what is measured.
        make = (
            f"from mlflow.tracking import MlflowClient as C; C('sqlite:///{folder / 'mlflow.db'}').search_experiments()"
        )
        subprocess.run([sys.executable, "-c", make], check=True, stderr=subprocess.DEVNULL)
        import_time()
        per_iteration(folder)
        tensorboard_alone(folder)
        until_visible(folder)


if __name__ == "__main__":
    main()
