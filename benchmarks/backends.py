"""Rows per second to each installed store, compared with its client library in a loop, and memory of the delivery.

``python benchmarks/backends.py [NAME ...] [--rounds N]``

Rows have five values. The client library logs one row per call and is closed at the end. The delivery reads the same
rows from the journal, saves its cursor after each batch, and ends the run. Both connect and send one row before the
measurement, in a new process each time, alternately.

Memory is the resident set size of the delivery process and its children after 200 rows, with one backend or with all of
them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import importlib
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
from _measure import Figure, format_spread, interleave, ratios

import pte_tracking as pte
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.garbage import collect_garbage_rarely
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Sink, get_sink, installed_sinks
from pte_tracking.testing import RecordedRun
from tests import servers

Row = Mapping[str, float]
Log = Callable[[int, Row], object]
Close = Callable[[], object]
_Result = TypeVar("_Result")
MEMORY_ROWS = 200


def row(step: int) -> dict[str, float]:
    return {
        "train/loss": 1 / (step + 1),
        "train/accuracy": 0.5,
        "val/loss": 2 / (step + 1),
        "val/accuracy": 0.25,
        "lr": 0.1,
    }


# -- client libraries --------------------------------------------------------------------------------------------------


def open_csv(folder: Path) -> tuple[Log, Close]:
    file = open(folder / "metrics.csv", "w", newline="")  # noqa: SIM115  # closed by the caller
    writer = csv.DictWriter(file, ["step", *row(0)])
    writer.writeheader()

    def log(step: int, values: Row) -> None:
        writer.writerow({"step": step, **values})
        file.flush()

    return log, file.close


def open_tensorboard(folder: Path) -> tuple[Log, Close]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))

    def log(step: int, values: Row) -> None:
        event = Event(wall_time=time.time(), step=step)
        for key, value in values.items():
            event.summary.value.add(tag=key, simple_value=value)
        writer.add_event(event)

    return log, writer.close


def open_mlflow(folder: Path) -> tuple[Log, Close]:
    import mlflow

    mlflow.set_tracking_uri(make_store(folder))
    mlflow.start_run()
    return lambda step, values: mlflow.log_metrics(dict(values), step), mlflow.end_run


def open_wandb(folder: Path) -> tuple[Log, Close]:
    import wandb

    settings = wandb.Settings(x_disable_stats=True, x_disable_meta=True, silent=True)
    run = wandb.init(project="p", dir=str(folder), mode="offline", settings=settings)
    return lambda step, values: run.log(dict(values), step=step), run.finish


def open_aim(folder: Path) -> tuple[Log, Close]:
    import aim

    run = aim.Run(repo=str(folder), system_tracking_interval=None, capture_terminal_logs=False)
    return lambda step, values: run.track(dict(values), step=step), run.close


def open_trackio(folder: Path) -> tuple[Log, Close]:
    import trackio

    trackio.init("p", embed=False, auto_log_gpu=False)
    return lambda step, values: trackio.log(dict(values), step=step), trackio.finish


def open_clearml(folder: Path) -> tuple[Log, Close]:
    from clearml import Task

    Task.set_offline(True)
    task = Task.init(
        "p", "t", auto_connect_frameworks=False, auto_resource_monitoring=False, auto_connect_streams=False
    )
    logger = task.get_logger()

    def log(step: int, values: Row) -> None:
        for key, value in values.items():
            title, _, series = key.rpartition("/")
            logger.report_scalar(title or series, series, value, step)

    return log, task.close


def open_swanlab(folder: Path) -> tuple[Log, Close]:
    import swanlab

    swanlab.init(project="p", mode="offline", logdir=str(folder))
    return lambda step, values: swanlab.log(dict(values), step=step), swanlab.finish


class Store(NamedTuple):
    """Store of a backend.

    Attributes:
        open_client: Open the client library. Returns functions that log a row and close the client.
        rows: Number of rows, so that a measurement takes about a second.
        make_options: Create options of the sink for a directory.
    """

    open_client: Callable[[Path], tuple[Log, Close]]
    rows: int
    make_options: Callable[[Path], Mapping[str, Any]] = lambda folder: {}


def make_store(folder: Path) -> str:
    servers.make_store(folder / "mlflow-template.db")
    return f"sqlite:///{servers.copy_store(folder / 'mlflow-template.db', folder)}"


STORES = {
    "csv": Store(open_csv, 20_000),
    "tensorboard": Store(open_tensorboard, 20_000),
    "mlflow": Store(open_mlflow, 300, lambda folder: {"tracking_uri": make_store(folder)}),
    "wandb": Store(open_wandb, 5_000),
    "aim": Store(open_aim, 300, lambda folder: {"repo": str(folder)}),
    "trackio": Store(open_trackio, 2_000),
    "clearml": Store(open_clearml, 300),
    "swanlab": Store(open_swanlab, 2_000),
}


# -- measurements, each in a process of its own ------------------------------------------------------------------------


def in_new_process(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call a function in a new process, whose working directory and stores are in a temporary directory."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(_call, Path(folder), function, arguments).result(timeout=600)


def _call(folder: Path, function: Callable[..., _Result], arguments: Sequence[object]) -> _Result:
    os.chdir(folder)
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    logging.getLogger("pte_tracking").setLevel(logging.WARNING)
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    with open(os.devnull, "w") as output, contextlib.redirect_stdout(output):
        return function(folder, *arguments)


def log_rows(folder: Path, name: str) -> float:
    """Return rows per second of the client library."""
    store = STORES[name]
    log, close = store.open_client(folder)
    log(0, row(0))
    start = time.perf_counter()
    for step in range(1, store.rows + 1):
        log(step, row(step))
    close()
    return store.rows / (time.perf_counter() - start)


def deliver_rows(folder: Path, name: str) -> float:
    """Return rows per second of the delivery."""
    rows = STORES[name].rows
    recorded = RecordedRun(folder / "run", make_sink(folder, name))
    recorded.log(0, row(0))
    recorded.deliver()
    for step in range(1, rows + 1):
        recorded.log(step, row(step))
    collect_garbage_rarely()
    start = time.perf_counter()
    recorded.end()
    return rows / (time.perf_counter() - start)


def measure_memory(folder: Path, names: Sequence[str]) -> float:
    """Return the resident set size of a delivery process and its children in MB."""
    sinks = [make_sink(folder, name) for name in names]
    with pte.Run(folder / "run", sinks=sinks, close_timeout=120) as run:
        for step in range(MEMORY_ROWS):
            run.log_metrics(row(step), step)
        manifest, deadline = Manifest.load(run.directory), time.monotonic() + 300
        while backlog(run.directory, manifest):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not delivered within 300 s: {', '.join(names)}")
            time.sleep(0.1)
        holder = lock.holder(run.directory / DELIVERY_LOCK)
        assert holder is not None
        process = psutil.Process(holder.pid)
        processes = [process, *process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes) / 2**20


def measure_import(folder: Path) -> float:
    """Return the resident set size of a process that only imports the delivery, in MB."""
    importlib.import_module("pte_tracking._delivery.process")
    return psutil.Process().memory_info().rss / 2**20


def make_sink(folder: Path, name: str) -> Sink:
    return get_sink(name)(**STORES[name].make_options(folder)).resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="Backends to measure. Defaults to all installed ones.")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    names = args.names or [name for name in STORES if name in installed_sinks()]
    for name in names:
        functions = {
            function: functools.partial(in_new_process, function, name) for function in (deliver_rows, log_rows)
        }
        speeds = interleave(args.rounds, functions)
        delivery, client = speeds[deliver_rows], speeds[log_rows]
        print(f"{name}: delivery {format_spread(delivery)} rows/s, client {format_spread(client)} rows/s", flush=True)
        Figure(f"rows per second to {name}", "client library in a loop", ratios(delivery, client), ">= 0.9").publish()
    # The training process itself writes inline sinks.
    delivered = [name for name in names if not get_sink(name).inline]
    cases = {name: [name] for name in delivered} | {"all": delivered}
    memory = interleave(
        args.rounds, {case: functools.partial(in_new_process, measure_memory, sinks) for case, sinks in cases.items()}
    )
    print(f"memory of the imports only: {in_new_process(measure_import):.0f} MB")
    for case, megabytes in memory.items():
        print(f"memory with {case}: {format_spread(megabytes)} MB")
    sums = [sum(values) for values in zip(*(memory[name] for name in delivered), strict=True)]
    Figure("memory with all backends", "sum of one process each", ratios(memory["all"], sums), "<= 1").publish()


if __name__ == "__main__":
    main()
