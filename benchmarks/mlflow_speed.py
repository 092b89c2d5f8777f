"""How fast a journal reaches MLflow, beside a bare loop of ``log_batch`` with 1000 metrics; and the delivery's memory.

``python benchmarks/mlflow_speed.py`` prints points per second and their ratio, on sqlite and over HTTP: rounds of both
in turn, each into a run of its own, with the median and the range of the ratios. A round delivers rows of five values.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import mlflow
from _measure import Figure
from mlflow.entities import Metric

from pte_mlflow import MLflowSink
from pte_tracking.testing import Recorded
from tests import servers

ROUNDS = 7
ROWS = 4000
KEYS = [f"train/{name}" for name in "abcde"]
_DELIVER = r"""
import re, sys
from pathlib import Path
from pte_tracking.runs.delivery import deliver
deliver(Path(sys.argv[1]))
# Not getrusage: that counts what was before exec, this benchmark's own size.
print(int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def deliver(uri: str, folder: Path) -> float:
    """Seconds that the journal takes, from its first byte on."""
    recorded = Recorded(folder / uuid.uuid4().hex, MLflowSink(uri))
    recorded.deliver()  # connects
    for step in range(ROWS):
        recorded.log(step, dict.fromkeys(KEYS, step / 7))
    start = time.perf_counter()
    recorded.deliver()
    return time.perf_counter() - start


def bare(uri: str) -> float:
    """Seconds that the same points take in requests of 1000."""
    client = mlflow.MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    now = int(time.time() * 1000)
    points = [Metric(key, step / 7, now + step, step) for step in range(ROWS) for key in KEYS]
    start = time.perf_counter()
    for first in range(0, len(points), 1000):
        client.log_batch(run_id, points[first : first + 1000])
    return time.perf_counter() - start


def compare(name: str, uri: str, folder: Path) -> None:
    deliver(uri, folder)
    bare(uri)
    pairs = [(deliver(uri, folder), bare(uri)) for _ in range(ROUNDS)]
    ours, theirs = (ROWS * len(KEYS) / statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(other / own for own, other in pairs)
    print(
        f"{name}: delivery {ours:,.0f} points/s, log_batch {theirs:,.0f} points/s, "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    Figure(f"rows a second to MLflow, {name}", "bare log_batch of 1000", ratios, ">= 0.9").tell()


def memory(name: str, uri: str, folder: Path) -> None:
    """The peak of a delivery process."""
    recorded = Recorded(folder / uuid.uuid4().hex, MLflowSink(uri))
    for step in range(ROWS):
        recorded.log(step, dict.fromkeys(KEYS, step / 7))
    (recorded.directory / ".lock").touch()
    command = [sys.executable, "-c", _DELIVER, str(recorded.directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{name}: delivery process, peak {done.stdout.strip()} MB")


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        for place in ("store", "server"):
            (folder / place).mkdir()
        store = f"sqlite:///{servers.copy_store(template, folder / 'store')}"
        compare("sqlite", store, folder)
        memory("sqlite", store, folder)
        with servers.mlflow_server(folder / "server", template) as uri:
            compare("HTTP", uri, folder)
            memory("HTTP", uri, folder)


if __name__ == "__main__":
    main()
