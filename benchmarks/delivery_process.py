"""Resources of the delivery process: start-up time, peak memory, and CPU usage of an idle run.

``python benchmarks/delivery_process.py``

Measured for TensorBoard, MLflow with a SQLite store, MLflow over HTTP, and TensorBoard with MLflow (SQLite):

- first row: seconds until all backends have the first row
- memory: peak memory in MB after a thousand rows of five values, also compared with the import of the client library
- idle: CPU usage in percent of a core while no events are logged
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
from _measure import Figure, format_spread, interleave, ratios

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery import shared_process
from pte_tracking._delivery.backlog import backlog
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking._store.manifest import Manifest
from tests import servers

ROUNDS = 5
ROWS = 1000
IDLE_SECONDS = 5.0
#: Imports that a script with the client library needs.
IMPORTS = {
    "MLflow, HTTP": "import mlflow",
    "MLflow, sqlite": "import mlflow; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore",
}
VALUES = {f"train/{name}": 0.123456789 for name in "abcde"}


def measure(folder: Path, sinks: Sequence[str | MLflowSink]) -> tuple[float, float, float]:
    wait_for_end()
    with pte.Run(folder / uuid.uuid4().hex, sinks=sinks) as run:
        start = time.perf_counter()
        run.log_metrics(VALUES, 0)
        wait_for_delivery(run.directory)
        started = time.perf_counter() - start
        for step in range(1, ROWS):
            run.log_metrics(VALUES, step)
        wait_for_delivery(run.directory)
        holder = lock.holder(run.directory / DELIVERY_LOCK)
        assert holder is not None
        assert holder.pid is not None
        process = psutil.Process(holder.pid)
        peak = peak_megabytes(Path(f"/proc/{process.pid}/status").read_text())
        start, before = time.perf_counter(), sum(process.cpu_times()[:2])
        time.sleep(IDLE_SECONDS)
        cpu_seconds = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - start)
        return started, peak, cpu_seconds * 100


def peak_megabytes(status: str) -> float:
    """Return the peak memory in a status of a process."""
    # VmHWM, since ru_maxrss also covers the time before exec and thus the size of this benchmark.
    peak = re.search(r"VmHWM:\s*(\d+)", status)
    assert peak is not None
    return int(peak[1]) / 1024


def measure_import(code: str) -> float:
    """Return the peak memory in MB of a process that only imports modules."""
    code += "; print(open('/proc/self/status').read())"
    return peak_megabytes(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def wait_for_delivery(directory: Path) -> None:
    """Wait until all events are delivered."""
    manifest, deadline = Manifest.load(directory), time.monotonic() + 60
    while pending := backlog(directory, manifest):
        if time.monotonic() > deadline:
            raise SystemExit(f"Not delivered within 60 s: {'; '.join(map(str, pending))}")
        time.sleep(0.02)


def is_delivery(process: psutil.Process) -> bool:
    """Whether a process that has not ended is a delivery process."""
    with contextlib.suppress(psutil.NoSuchProcess):  # also raised for a process that has ended, but is not reaped
        return "pte_tracking._delivery" in " ".join(process.cmdline())
    return False


def wait_for_end() -> None:
    """Wait for the end of the process of the last measurement, which waits for further runs."""
    deadline = time.monotonic() + 60
    while any(map(is_delivery, psutil.Process().children())):
        if time.monotonic() > deadline:
            raise SystemExit("The delivery process of the last measurement has not ended.")
        time.sleep(0.1)
        shared_process.check_processes()


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        for directory in ("store", "server"):
            (folder / directory).mkdir()
        store = MLflowSink(f"sqlite:///{servers.copy_store(template, folder / 'store')}")
        with servers.mlflow_server(folder / "server", template) as uri:
            cases: dict[str, tuple[list[str | MLflowSink], int]] = {
                "TensorBoard": (["tensorboard"], 80),
                "MLflow, sqlite": ([store], 220),
                "MLflow, HTTP": ([MLflowSink(uri)], 220),
                "TensorBoard and MLflow, sqlite": (["tensorboard", store], 220),
            }
            results = interleave(ROUNDS, {case: partial(measure, folder, sinks) for case, (sinks, _) in cases.items()})
    imports = interleave(ROUNDS, {case: partial(measure_import, code) for case, code in IMPORTS.items()})
    for case, (_, max_megabytes) in cases.items():
        started, memory, idle_percent = (list(column) for column in zip(*results[case], strict=True))
        print(
            f"{case}: first row after {format_spread(started)} s, memory {format_spread(memory)} MB, "
            f"idle {format_spread(idle_percent)} %"
        )
        Figure(f"memory of the delivery process: {case}", "MB", memory, f"<= {max_megabytes}").publish()
        if case in imports:
            Figure(f"the same: {case}", "import of the client", ratios(memory, imports[case]), "<= 1.1").publish()
        Figure(f"CPU usage of an idle delivery process: {case}", "% of a core", idle_percent, "<= 1").publish()


if __name__ == "__main__":
    main()
