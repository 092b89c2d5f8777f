"""Time of ``pte-tracking import`` for 1,000,000 data points.

``python benchmarks/import_speed.py [--points N] [--keys N] [--rounds N] [SOURCE ...]``

Imported are event files of torch's SummaryWriter, a CSV file, a JSON log, and an MLflow run in a SQLite store. Rows
have five values. Printed is the time of the whole command in seconds for each source, its rate, and its CPU time, which
other processes affect less. For MLflow, its client is measured as well, with the same data points.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from _measure import Figure, format_spread

from tests import servers

START = 1_700_000_000.0


def rows(count: int, keys: int) -> Iterator[tuple[int, dict[str, float]]]:
    for step in range(1, count // keys + 1):
        yield step, {f"train/value{number}": (step + number) / 7 for number in range(keys)}


def write_tensorboard(folder: Path, count: int, keys: int) -> list[str]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "events"), max_queue=1000) as writer:
        for step, row in rows(count, keys):
            for key, value in row.items():
                writer.add_scalar(key, value, step)
    return [str(folder / "events")]


def write_csv(folder: Path, count: int, keys: int) -> list[str]:
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["iteration", "elapsed_time", *next(rows(keys, keys))[1]])
        writer.writerows([step, step / 100, *row.values()] for step, row in rows(count, keys))
    return [str(path)]


def write_json(folder: Path, count: int, keys: int) -> list[str]:
    path = folder / "log"
    path.write_text(json.dumps([{**row, "iteration": step, "elapsed_time": step} for step, row in rows(count, keys)]))
    return [str(path)]


def write_mlflow(folder: Path, count: int, keys: int) -> list[str]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    servers.make_store(folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    last = count // keys
    client.log_batch(run_id, [Metric(key, value, int(START * 1000) + last, last) for key, value in row_of(last, keys)])
    # The client writes 20,000 data points per second.
    points = (
        (key, value, int(START * 1000) + step, run_id, step, False)
        for step, row in rows(count - keys, keys)
        for key, value in row.items()
    )
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", points
        )
    client.set_terminated(run_id)
    return [f"runs:/{run_id}", "--option", f"tracking_uri={uri}"]


def row_of(step: int, keys: int) -> list[tuple[str, float]]:
    return [(f"train/value{number}", (step + number) / 7) for number in range(keys)]


def read_with_client(arguments: list[str]) -> float:
    """Return the seconds in which MLflow's client returns the data points."""
    from mlflow import MlflowClient

    client, run_id = MlflowClient(arguments[2].partition("=")[2]), arguments[0].removeprefix("runs:/")
    start = time.perf_counter()
    for key in client.get_run(run_id).data.metrics:
        client.get_metric_history(run_id, key)
    return time.perf_counter() - start


def import_source(arguments: list[str], target: Path, count: int) -> tuple[float, float]:
    """Return the seconds of the command and its CPU time."""
    command = [
        sys.executable,
        "-m",
        "pte_tracking._cli",
        "import",
        *arguments[:1],
        str(target),
        *arguments[1:],
        "--json",
    ]
    start, cpu_start = time.perf_counter(), cpu_seconds()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    imported = json.loads(done.stdout)["points"]
    assert imported == count, f"{imported} of {count} data points"
    return seconds, cpu_seconds() - cpu_start


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


WRITERS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "tensorboard": write_tensorboard,
    "csv": write_csv,
    "json": write_json,
    "mlflow": write_mlflow,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=list(WRITERS), metavar="SOURCE", help=", ".join(WRITERS))
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    count = args.points // args.keys * args.keys
    for name in args.sources:
        with tempfile.TemporaryDirectory() as folder:
            source = WRITERS[name](Path(folder), count, args.keys)
            times = [import_source(source, Path(folder, f"run{number}"), count) for number in range(args.rounds)]
            walls, cpus = zip(*times, strict=True)
            Figure(f"import of {count:,} data points from {name}", "seconds", walls, "<= 60").publish()
            rate = format_spread([count / seconds for seconds in walls])
            print(f"{name}: {rate} data points per second, CPU time {format_spread(cpus)} s")
            if name == "mlflow":
                print(f"the same data points from MLflow's client: {read_with_client(source):.3g} s")


if __name__ == "__main__":
    main()
