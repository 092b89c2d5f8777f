"""Time that the training thread spends on logging a row: pte_tracking compared with other libraries.

``python benchmarks/peers.py [--rounds N]`` (default: 5 rounds; about 15 minutes)

Each candidate runs in a separate process, once per round. An iteration is half a millisecond of torch work, after which
five tensors are logged to TensorBoard and MLflow (a local SQLite store). Libraries that do not accept tensors receive
floats; the conversion is part of the measured time. "asynchronous" means that mlflow sends metrics from a background
thread; "1 s" means that the thread also collects them for one second, which is its fastest mode.

The table has one line per candidate, each value as median (lowest to highest) over the rounds:

- median: microseconds per row on the training thread
- mean: the same as a mean, which includes the time that the thread waits for background threads
- p99: 99th percentile
- drain: seconds that the final call (close, flush) takes until everything is delivered
- steps: number of steps in the MLflow store afterward
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from _measure import Figure, format_spread, interleave, ratios
from _peers import CANDIDATES

NAMES = ["train/loss", "train/accuracy", "train/norm", "train/a", "train/b"]


def simulate_work(x: torch.Tensor) -> torch.Tensor:
    deadline = time.perf_counter() + 0.0005
    while time.perf_counter() < deadline:
        x = x @ x.T / 100
    return x.mean()


def measure(name: str, template: Path) -> None:
    """Run one candidate in this process and print its result."""
    candidate = CANDIDATES[name]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        shutil.copy(template, folder / "mlflow.db")
        x, microseconds = torch.rand(64, 64), []
        with candidate.open(folder, f"sqlite:///{folder / 'mlflow.db'}") as log:
            for step in range(1, candidate.iterations + 1):
                mean = simulate_work(x)
                values = {key: mean + index for index, key in enumerate(NAMES)}
                start = time.perf_counter()
                log(values, step)
                microseconds.append((time.perf_counter() - start) * 1e6)
            drain_start = time.perf_counter()
        drain_seconds = time.perf_counter() - drain_start
        steady = sorted(microseconds[candidate.iterations // 20 :])
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            ((stored_steps,),) = database.execute("SELECT COUNT(DISTINCT step) FROM metrics")
        p99 = steady[int(len(steady) * 0.99)]
        print(
            "result:"
            + json.dumps([statistics.median(steady), statistics.mean(steady), p99, drain_seconds, stored_steps])
        )


def measure_in_subprocess(name: str, template: Path) -> list[float]:
    """Return median, mean, 99th percentile, drain time, and number of stored steps of one candidate."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--template", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.template)
        return
    names = [name for name, candidate in CANDIDATES.items() if candidate.is_installed]
    with tempfile.TemporaryDirectory() as directory:
        template = Path(directory) / "mlflow.db"
        code = f"from mlflow import MlflowClient as C; C('sqlite:///{template}').search_experiments()"
        subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
        results = interleave(args.rounds, {name: partial(measure_in_subprocess, name, template) for name in names})
    print(
        f"  {'candidate':50s}",
        *(f"{column:>26s}" for column in ("median (us)", "mean (us)", "p99 (us)", "drain (s)", "steps")),
    )
    for name in names:
        columns = [f"{format_spread(column):>26s}" for column in zip(*results[name], strict=True)]
        print(f"  {CANDIDATES[name].label:50s}", *columns)
    medians = {name: [result[0] for result in rounds] for name, rounds in results.items()}
    peers = [name for name in names if CANDIDATES[name].is_peer]
    fastest = min(peers, key=lambda name: statistics.median(medians[name]))
    label = "a row of 5 values to TensorBoard and MLflow, training thread"
    Figure(label, CANDIDATES[fastest].label, ratios(medians["run"], medians[fastest]), "<= 0.03").publish()
    Figure(label, CANDIDATES["floor"].label, ratios(medians["run"], medians["floor"]), "<= 4").publish()


if __name__ == "__main__":
    main()
