"""What a row of five values to TensorBoard and MLflow costs the training thread: ours, the peers, and the floor.

``python benchmarks/peers.py`` (``--rounds N``). Each candidate runs in a process of its own, one after the other in
each round: a loop of half a millisecond of torch work, then five tensors are logged, and the microseconds from the end
of the work to the end of the logging are taken. MLflow's store is sqlite. A peer that takes no tensors gets their
numbers. The floor encodes the five numbers with the fastest JSON library and writes them to a file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _measure import Figure, format_spread, interleave, ratios

Values = dict[str, torch.Tensor]
#: Takes the values of an iteration and its number.
Log = Callable[[Values, int], object]
NAMES = ["train/loss", "train/accuracy", "train/norm", "train/a", "train/b"]
SLOW_ITERATIONS = 250  # iterations of a peer that takes milliseconds
FAST_ITERATIONS = 2000


def to_floats(values: Values) -> dict[str, float]:
    return {key: value.item() for key, value in values.items()}


@contextmanager
def encode_and_write(folder: Path, store: str) -> Iterator[Log]:
    import msgspec

    encode = msgspec.json.Encoder().encode
    file = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield lambda values, step: os.write(file, encode({key: value.item() for key, value in values.items()}) + b"\n")
    os.close(file)


@contextmanager
def pte_run(folder: Path, store: str) -> Iterator[Log]:
    import pte_tracking as pte
    from pte_backends.mlflow import MLflowSink

    with pte.Run(folder / "run", sinks=["tensorboard", MLflowSink(tracking_uri=store)], close_timeout=60) as run:
        yield run.log_metrics


@contextmanager
def pte_manager(folder: Path, store: str) -> Iterator[Log]:
    import pte_tracking as pte
    from pte_backends.mlflow import MLflowSink
    from pte_tracking import extensions

    manager = pte.ExtensionsManager(
        {},
        1,
        [extensions.LogReport(trigger=(1, "iteration"))],
        iters_per_epoch=FAST_ITERATIONS + 1,
        out_dir=folder / "run",
        sinks=["json", "tensorboard", MLflowSink(tracking_uri=store)],
        close_timeout=60,
    )

    def log(values: Values, step: int) -> None:
        with manager.run_iteration():
            pte.report(values)

    with manager:
        yield log


@contextmanager
def mlflow_sync(folder: Path, store: str) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(store)
    with mlflow.start_run():
        yield lambda values, step: mlflow.log_metrics(to_floats(values), step=step)


@contextmanager
def mlflow_async(folder: Path, store: str) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(store)
    with mlflow.start_run():
        yield lambda values, step: mlflow.log_metrics(to_floats(values), step=step, synchronous=False)
        mlflow.flush_async_logging()


@contextmanager
def mlflow_buffered(folder: Path, store: str) -> Iterator[Log]:
    os.environ["MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS"] = "1"
    with mlflow_async(folder, store) as log:
        yield log


@contextmanager
def summary_writer(folder: Path, store: str) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    def log(values: Values, step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    writer = SummaryWriter(str(folder / "tensorboard"))
    yield log
    writer.close()


@contextmanager
def summary_writer_and_mlflow(folder: Path, store: str) -> Iterator[Log]:
    with summary_writer(folder, store) as log_to_tensorboard, mlflow_buffered(folder, store) as log_to_mlflow:

        def log(values: Values, step: int) -> None:
            log_to_tensorboard(values, step)
            log_to_mlflow(values, step)

        yield log


@contextmanager
def lightning(folder: Path, store: str) -> Iterator[Log]:
    from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger

    loggers = [TensorBoardLogger(str(folder)), MLFlowLogger(tracking_uri=store)]

    def log(values: Values, step: int) -> None:
        floats = to_floats(values)  # as its trainer does
        for logger in loggers:
            logger.log_metrics(floats, step)

    yield log
    for logger in loggers:
        logger.finalize("success")


@contextmanager
def ignite(folder: Path, store: str) -> Iterator[Log]:
    from ignite.engine import Engine, Events
    from ignite.handlers import MLflowLogger, TensorboardLogger

    engine = Engine(lambda engine, values: values)
    handlers = [TensorboardLogger(log_dir=str(folder / "tensorboard")), MLflowLogger(tracking_uri=store)]
    for handler in handlers:
        handler.attach_output_handler(engine, Events.ITERATION_COMPLETED, tag="train", output_transform=lambda o: o)

    def log(values: Values, step: int) -> None:
        engine.state.iteration, engine.state.output = step, values  # type: ignore[assignment]
        engine.fire_event(Events.ITERATION_COMPLETED)

    yield log
    for handler in handlers:
        handler.close()


@contextmanager
def accelerate(folder: Path, store: str) -> Iterator[Log]:
    from accelerate import Accelerator

    os.environ["MLFLOW_TRACKING_URI"] = store
    accelerator = Accelerator(cpu=True, log_with=["tensorboard", "mlflow"], project_dir=str(folder))
    accelerator.init_trackers("peers")
    yield lambda values, step: accelerator.log(to_floats(values), step=step)
    accelerator.end_training()


@contextmanager
def dvclive(folder: Path, store: str) -> Iterator[Log]:
    from dvclive import Live

    def log(values: Values, step: int) -> None:
        live.step = step
        for key, value in to_floats(values).items():
            live.log_metric(key, value)
        live.make_summary()

    os.chdir(folder)
    with Live(dir=str(folder / "live"), save_dvc_exp=False, report=None, dvcyaml=None) as live:
        yield log


@contextmanager
def pfn_extras(folder: Path, store: str) -> Iterator[Log]:
    import pytorch_pfn_extras as ppe

    writer = ppe.writing.TensorBoardWriter(out_dir=str(folder / "tensorboard"))
    manager = ppe.training.ExtensionsManager({}, {}, 1, iters_per_epoch=FAST_ITERATIONS + 1, out_dir=str(folder))
    manager.extend(ppe.training.extensions.LogReport(trigger=(1, "iteration"), writer=writer, filename="log"))

    def log(values: Values, step: int) -> None:
        with manager.run_iteration():
            ppe.reporting.report(values)

    yield log
    manager.finalize()
    writer.finalize()


#: Label, how it logs, iterations, and whether it serves both TensorBoard and MLflow.
CANDIDATES: dict[str, tuple[str, Callable[..., Any], int, bool]] = {
    "floor": ("encode and write", encode_and_write, FAST_ITERATIONS, False),
    "run": ("pte_tracking: Run.log_metrics, both", pte_run, FAST_ITERATIONS, False),
    "manager": ("pte_tracking: manager and LogReport, both and JSON", pte_manager, FAST_ITERATIONS, False),
    "lightning": ("Lightning: both loggers", lightning, SLOW_ITERATIONS, True),
    "ignite": ("Ignite: both handlers", ignite, SLOW_ITERATIONS, True),
    "accelerate": ("Accelerate: both trackers", accelerate, SLOW_ITERATIONS, True),
    "combined": ("SummaryWriter and mlflow, asynchronous, 1 s", summary_writer_and_mlflow, FAST_ITERATIONS, True),
    "sync": ("mlflow", mlflow_sync, SLOW_ITERATIONS, False),
    "async": ("mlflow, asynchronous", mlflow_async, FAST_ITERATIONS, False),
    "buffered": ("mlflow, asynchronous, 1 s", mlflow_buffered, FAST_ITERATIONS, False),
    "writer": ("SummaryWriter", summary_writer, FAST_ITERATIONS, False),
    "dvclive": ("DVCLive, its own files", dvclive, SLOW_ITERATIONS, False),
    "pfn": ("pytorch-pfn-extras: LogReport, TensorBoardWriter", pfn_extras, SLOW_ITERATIONS, False),
}
REQUIRED_PACKAGES = {
    "lightning": "lightning",
    "accelerate": "accelerate",
    "dvclive": "dvclive",
    "pfn": "pytorch_pfn_extras",
}


def simulate_work(x: torch.Tensor) -> torch.Tensor:
    deadline = time.perf_counter() + 0.0005
    while time.perf_counter() < deadline:
        x = x @ x.T / 100
    return x.mean()


def measure(name: str, template: Path) -> None:
    """Run one in this process, and print what it took."""
    _, candidate, iterations, _ = CANDIDATES[name]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        shutil.copy(template, folder / "mlflow.db")
        x, microseconds = torch.rand(64, 64), []
        with candidate(folder, f"sqlite:///{folder / 'mlflow.db'}") as log:
            for step in range(1, iterations + 1):
                mean = simulate_work(x)
                values = {key: mean + index for index, key in enumerate(NAMES)}
                start = time.perf_counter()
                log(values, step)
                microseconds.append((time.perf_counter() - start) * 1e6)
            drain_start = time.perf_counter()
        drain_seconds = time.perf_counter() - drain_start
        steady = sorted(microseconds[iterations // 20 :])
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            ((stored_steps,),) = database.execute("SELECT COUNT(DISTINCT step) FROM metrics")
        p99 = steady[int(len(steady) * 0.99)]
        print("result:" + json.dumps([statistics.median(steady), p99, drain_seconds, stored_steps]))


def measure_in_subprocess(name: str, template: Path) -> list[float]:
    """Median and 99th percentile in microseconds, the seconds that the end took, and the rows in MLflow's store."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", name, "--template", str(template)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("result:")]
    if not lines:
        raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
    result: list[float] = json.loads(lines[-1].removeprefix("result:"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=CANDIDATES)
    parser.add_argument("--template", type=Path)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.template)
        return
    names = [
        name
        for name in CANDIDATES
        if name not in REQUIRED_PACKAGES or importlib.util.find_spec(REQUIRED_PACKAGES[name])
    ]
    with tempfile.TemporaryDirectory() as directory:
        template = Path(directory) / "mlflow.db"
        code = f"from mlflow import MlflowClient as C; C('sqlite:///{template}').search_experiments()"
        subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
        results = interleave(args.rounds, {name: partial(measure_in_subprocess, name, template) for name in names})
    print("us on the training thread for a row of five tensors; p99; seconds that the end took; rows in MLflow's store")
    for name in names:
        columns = [f"{format_spread(column):>26s}" for column in zip(*results[name], strict=True)]
        print(f"  {CANDIDATES[name][0]:52s}", *columns)
    medians = {name: [result[0] for result in rounds] for name, rounds in results.items()}
    both = [name for name in names if CANDIDATES[name][3]]
    fastest = min(both, key=lambda name: statistics.median(medians[name]))
    label = "a row of 5 values to TensorBoard and MLflow, training thread"
    Figure(label, CANDIDATES[fastest][0], ratios(medians["run"], medians[fastest]), "<= 0.03").publish()
    Figure(label, CANDIDATES["floor"][0], ratios(medians["run"], medians["floor"]), "<= 4").publish()


if __name__ == "__main__":
    main()
