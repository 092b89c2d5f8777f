"""Fifty and 200 runs that log to one MLflow server with PostgreSQL at the same time.

``python benchmarks/many_runs.py`` (requires PostgreSQL)

Three loads, one after the other, then 200 simulated runs at a second server (see ``_simulated_runs.py``, and
``python benchmarks/many_runs.py simulated``, which needs five minutes and runs only these):

- pte_tracking: 50 runs of 2,000 iterations, with a row of three values every 50 ms. Each run is a process with a
  delivery process.
- mlflow.log_metrics: 50 runs of 100 iterations that log as fast as the server responds. 2,000 iterations would take an
  hour.
- pte_tracking, after an outage: the 50 runs log while the server is down, and deliver at the same moment.

Each load prints the requests per second, the CPU time of the server and of PostgreSQL per thousand rows, the delay from
the last row of a run until it is stored, and the steps of the runs when half of all rows are stored. The benchmark
fails if a data point is missing or stored twice.

All processes share one machine. The connection pool of the server is larger than the default. With the default, many of
the runs that call ``mlflow.log_metrics`` fail.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from _counts import SETTINGS, read_access_log
from _load import ENVIRONMENT, WORKERS, core_seconds, find_server
from _measure import Figure
from _simulated_runs import measure_simulated_runs, train

from tests import servers
from tests.postgres import Postgres, find_missing_requirement, postgres

RUNS, ITERATIONS, ROW_SECONDS = 50, 2_000, 0.05
BARE_ITERATIONS = 100
KEYS = ("loss", "accuracy", "rate")
OUTAGE_SECONDS = 30.0
TIMEOUT_SECONDS = 900.0
POLL_SECONDS = 1.0


def values(iteration: int) -> dict[str, float]:
    return {key: (iteration + number) / 7 for number, key in enumerate(KEYS)}


def train_run(directory: str, uri: str, experiment: str, seconds: float) -> None:
    """Train one run with pte_tracking and return when all events are delivered."""
    import pte_tracking as pte
    from pte_backends.mlflow import MLflowSink

    next_time = time.monotonic()
    with pte.Run(directory, sinks=[MLflowSink(uri, experiment)], close_timeout=TIMEOUT_SECONDS) as run:
        for iteration in range(1, ITERATIONS + 1):
            run.log_metrics(values(iteration), iteration)
            next_time += seconds
            time.sleep(max(next_time - time.monotonic(), 0))


def train_bare(uri: str, experiment: str) -> None:
    """Train one run with one mlflow.log_metrics call per iteration."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    with mlflow.start_run():
        for iteration in range(1, BARE_ITERATIONS + 1):
            mlflow.log_metrics(values(iteration), iteration)


class Load(NamedTuple):
    """Result of a load.

    Attributes:
        rows: Number of stored rows.
        seconds: Time from the first start until the last row is stored.
        requests: Number of requests by endpoint.
        server: CPU time of the MLflow server, in seconds.
        database: CPU time of PostgreSQL, in seconds.
        delays: Seconds from the last row of a run until it is stored, one value per run.
        halfway_steps: Last stored steps of all runs when half of all rows are stored.
    """

    rows: int
    seconds: float
    requests: Counter[str]
    server: float
    database: float
    delays: list[float]
    halfway_steps: list[int]

    @property
    def rate(self) -> float:
        """Requests per second and run."""
        return sum(self.requests.values()) / self.seconds / RUNS

    def print_summary(self, name: str) -> None:
        num_requests, thousands = sum(self.requests.values()), self.rows / 1000
        print(f"\n{name}: {self.rows:,} rows of {len(KEYS)} values in {self.seconds:.0f} s")
        print(f"  requests: {num_requests:,}, {num_requests / self.seconds:.1f}/s, {self.rate:.2f}/s per run")
        print(f"  of which: {', '.join(f'{count:,} {endpoint}' for endpoint, count in self.requests.most_common(6))}")
        server, database = self.server / thousands, self.database / thousands
        print(f"  CPU time per thousand rows: server {server:.2f} s, PostgreSQL {database:.2f} s")
        print(f"  delay of the last row: {_distribution(self.delays)} s")
        print(f"  steps when half of all rows are stored: {_distribution(self.halfway_steps)}", flush=True)


def _distribution(numbers: list[float] | list[int]) -> str:
    return f"median {statistics.median(numbers):.3g}, {min(numbers):.3g} to {max(numbers):.3g}"


class LoadMonitor:
    """Monitor of the server log, the database, and the CPU time of both.

    Args:
        database: Database of the server.
        folder: Directory with the server log.
        experiment: Name of the experiment that the load writes to.
        port: Port of the server.
    """

    def __init__(self, database: Postgres, folder: Path, experiment: str, port: int) -> None:
        self._database, self._log, self._experiment = database, folder / "server.log", experiment
        self._size = self._log.stat().st_size
        self._server = find_server(port)
        self._start, self._cpu_before = time.time(), self._cpu_seconds()

    def wait(self, iterations: int) -> Load:
        """Wait until all rows of all runs are stored."""
        halfway_steps: list[int] = []
        arrived: dict[str, float] = {}
        while len(arrived) < RUNS:
            if time.time() - self._start > TIMEOUT_SECONDS:
                raise SystemExit(f"Only {len(arrived)} of {RUNS} runs were complete after {TIMEOUT_SECONDS:.0f} s.")
            time.sleep(POLL_SECONDS)
            rows = self._query(
                "SELECT run_uuid, max(step) FROM latest_metrics JOIN runs USING (run_uuid) {} GROUP BY 1"
            )
            arrived.update({run: time.time() for run, step in rows if step == iterations and run not in arrived})
            if not halfway_steps and sum(step for _, step in rows) >= RUNS * iterations / 2:
                halfway_steps = [step for _, step in rows] + [0] * (RUNS - len(rows))
        seconds = time.time() - self._start
        server, database = (after - before for before, after in zip(self._cpu_before, self._cpu_seconds(), strict=True))
        logged = dict(
            self._query(
                "SELECT run_uuid, max(timestamp) / 1000.0 FROM metrics JOIN runs USING (run_uuid) {} GROUP BY 1"
            )
        )
        delays = [
            max(arrival_time - max(float(logged[run]), self._start), 0.0) for run, arrival_time in arrived.items()
        ]
        return Load(self._check(iterations), seconds, self._requests(), server, database, delays, halfway_steps)

    def _check(self, iterations: int) -> int:
        """Return the number of rows after checking that each is stored exactly once."""
        rows = self._query(
            "SELECT run_uuid, key, count(*), count(DISTINCT step), sum(value) FROM metrics JOIN runs USING (run_uuid) "
            "{} AND key != 'epoch' GROUP BY 1, 2"
        )
        expected = {key: sum(values(i)[key] for i in range(1, iterations + 1)) for key in KEYS}
        invalid = [row for row in rows if row[2:4] != (iterations, iterations) or abs(row[4] - expected[row[1]]) > 1e-3]
        if invalid or len(rows) != RUNS * len(KEYS):
            raise SystemExit(f"Data points are missing or duplicated in {len(rows)} curves: {invalid}")
        return RUNS * iterations

    def _query(self, query: str) -> list[tuple[object, ...]]:
        join = f"JOIN experiments USING (experiment_id) WHERE experiments.name = '{self._experiment}'"
        return self._database.query(query.format(join), "mlflow")

    def _requests(self) -> Counter[str]:
        return read_access_log(self._log, self._size).requests

    def _cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time of the server and of PostgreSQL, in seconds."""
        return core_seconds(self._server), core_seconds(psutil.Process(self._database.process_id))


def run_all(command: Callable[[int], list[str]], monitor: Callable[[], Load]) -> Load:
    """Start all runs at once and wait until their rows are stored."""
    with open(os.devnull, "w") as devnull:
        processes = [
            subprocess.Popen([sys.executable, __file__, *command(number)], stdout=devnull) for number in range(RUNS)
        ]
    try:
        return monitor()
    finally:
        for process in processes:
            process.wait(60)


def measure(folder: Path, database: Postgres) -> None:
    store, artifacts = database.create("mlflow"), str(folder / "artifacts")
    port = servers.free_port()
    uri = f"http://127.0.0.1:{port}"
    loads: dict[str, Load] = {}
    with servers.serve(folder, store, artifacts, ENVIRONMENT, workers=WORKERS, port=port):
        monitor = LoadMonitor(database, folder, "pte_tracking", port)
        loads["pte_tracking"] = run_all(
            lambda number: ["train", str(folder / f"pte_tracking-{number}"), uri, "pte_tracking", str(ROW_SECONDS)],
            lambda: monitor.wait(ITERATIONS),
        )
        loads["pte_tracking"].print_summary("pte_tracking")
        monitor = LoadMonitor(database, folder, "mlflow", port)
        loads["mlflow"] = run_all(lambda number: ["train_bare", uri, "mlflow"], lambda: monitor.wait(BARE_ITERATIONS))
        loads["mlflow"].print_summary("mlflow.log_metrics")

    def deliver_after_outage() -> Load:
        time.sleep(OUTAGE_SECONDS)
        with servers.serve(folder, store, artifacts, ENVIRONMENT, workers=WORKERS, port=port):
            return LoadMonitor(database, folder, "outage", port).wait(ITERATIONS)

    loads["outage"] = run_all(
        lambda number: ["train", str(folder / f"outage-{number}"), uri, "outage", "0"], deliver_after_outage
    )
    loads["outage"].print_summary("pte_tracking, after an outage")
    size = database.query("SELECT pg_total_relation_size('metrics') / count(*)::float FROM metrics", "mlflow")
    print(f"\nPostgreSQL uses {size[0][0]:.0f} bytes per data point, including indexes")
    load, bare_load = loads["pte_tracking"], loads["mlflow"]
    Figure(
        "50 runs at one server: CPU time of the server per row",
        "mlflow.log_metrics each iteration",
        [(load.server + load.database) / load.rows / ((bare_load.server + bare_load.database) / bare_load.rows)],
        "<= 0.2",
    ).publish()
    Figure("50 runs at one server: requests per run", "per second", [load.rate], "<= 1.5").publish()
    Figure("50 runs at one server: longest delay of a last row", "s", [max(load.delays)], "<= 30").publish()


def measure_simulated(folder: Path, database: Postgres) -> None:
    store, port = database.create("mlflow"), servers.free_port()
    with servers.serve(folder, store, str(folder / "artifacts"), ENVIRONMENT, workers=WORKERS, port=port):
        measure_simulated_runs(folder, database, port, __file__)


def main() -> None:
    mode, *arguments = sys.argv[1:] or ["all"]
    if mode == "train":
        return train_run(*arguments[:3], float(arguments[3]))
    if mode == "train_bare":
        return train_bare(*arguments)
    if mode == "train_simulated":
        return train(*arguments)
    if reason := find_missing_requirement():
        raise SystemExit(reason)
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    for measurement in (measure_simulated,) if mode == "simulated" else (measure, measure_simulated):
        with tempfile.TemporaryDirectory() as name, postgres(max_connections=200, **SETTINGS) as database:
            measurement(Path(name), database)


if __name__ == "__main__":
    main()
