"""200 runs that log to one MLflow server with PostgreSQL at the same time, in four training processes.

Each training process has 50 runs, which share its delivery process, because 200 MLflow clients need 30 GB of memory.
The loads follow one after the other, with the same runs: all start, are idle, log at three rates, and end.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from _counts import Statements, count_connections, count_statements, read_access_log
from _load import core_seconds, find_server
from _measure import Figure
from rich.console import Console
from rich.table import Table

from tests.postgres import Postgres

PROCESSES, RUNS_PER_PROCESS = 4, 50
RUNS = PROCESSES * RUNS_PER_PROCESS
EXPERIMENT = "simulated"
TIMEOUT_SECONDS = 120.0
IDLE_SECONDS = 15.0
_PARAMS = {f"param {number}": number for number in range(20)}


class Rate(NamedTuple):
    """Rate at which each run logs.

    Attributes:
        keys: Number of values per row.
        row_seconds: Time between two rows.
        rows: Number of rows.
    """

    keys: int
    row_seconds: float
    rows: int


RATES = {
    "5 values every 10 s": Rate(5, 10.0, 4),
    "100 values every 10 s": Rate(100, 10.0, 4),
    "5 values every second": Rate(5, 1.0, 30),
}


def train(directory: str, uri: str) -> None:
    """Train 50 runs. Each line of standard input starts a load, and its end ends the runs."""
    import pte_tracking as pte
    from pte_backends.mlflow import MLflowSink

    logging.getLogger("pte_tracking").setLevel(logging.ERROR)  # without what is not delivered yet
    sink, step = MLflowSink(uri, EXPERIMENT), 1
    with ExitStack() as stack:
        runs = [
            stack.enter_context(pte.Run(f"{directory}/{number}", sinks=[sink], params=_PARAMS, close_timeout=0))
            for number in range(RUNS_PER_PROCESS)
        ]
        for run in runs:
            run.log_metrics({"key 0": 0.5}, step)
        for line in sys.stdin:
            rate = RATES[line.strip()]
            next_time = time.monotonic()
            for _ in range(rate.rows):
                step += 1
                for run in runs:  # evenly distributed over the interval
                    run.log_metrics({f"key {number}": step / 7 for number in range(rate.keys)}, step)
                    next_time += rate.row_seconds / len(runs)
                    time.sleep(max(next_time - time.monotonic(), 0))


class Load(NamedTuple):
    """Counts of one load.

    Attributes:
        seconds: Time until all rows were stored.
        requests: Number of requests by endpoint.
        failures: Number of responses with an error by status code.
        clients: Number of connections on which the requests arrived.
        connections: Highest number of open connections to the server.
        database_connections: Highest number of open connections to PostgreSQL.
        statements: Statements of PostgreSQL.
        server: CPU time of the server, in seconds.
        database: CPU time of PostgreSQL, in seconds.
        delivery: CPU time of the delivery processes, in seconds.
        disk_bytes: Growth of the table of data points, including its indexes.
    """

    seconds: float
    requests: Counter[str]
    failures: Counter[str]
    clients: int
    connections: int
    database_connections: int
    statements: Statements
    server: float
    database: float
    delivery: float
    disk_bytes: int

    @property
    def num_requests(self) -> int:
        return sum(self.requests.values())

    def print_endpoints(self, name: str) -> None:
        endpoints = ", ".join(f"{count / RUNS:.3g} {endpoint}" for endpoint, count in self.requests.most_common())
        failures = ", ".join(f"{count} responses {status}" for status, count in self.failures.items())
        print(f"{name}: requests per run: {endpoints or 'none'}{'; ' * bool(failures)}{failures}")


class DeliveryTimes:
    """CPU times of the delivery processes, including those that ended.

    Args:
        trainings: Training processes. More may be added.
    """

    def __init__(self, trainings: list[subprocess.Popen[str]]) -> None:
        self._trainings = trainings
        self._seconds: dict[psutil.Process, float] = {}
        self._lock = threading.Lock()

    def read(self) -> float:
        """Return the total CPU time in seconds. A process that ended counts with the time at the last call."""
        with self._lock:
            for training in self._trainings:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._seconds |= dict.fromkeys(psutil.Process(training.pid).children(), 0.0) | self._seconds
            for process in self._seconds:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._seconds[process] = core_seconds(process)
            return sum(self._seconds.values())


class LoadCounter:
    """Counts requests, statements, connections, and CPU time from its construction on.

    Args:
        database: PostgreSQL of the server.
        port: Port of the server.
        log: Log of the server.
        deliveries: CPU times of the delivery processes.
    """

    def __init__(self, database: Postgres, port: int, log: Path, deliveries: DeliveryTimes) -> None:
        self._database, self._port, self._log, self._deliveries = database, port, log, deliveries
        self._server = find_server(port)
        self._position, self._statements = log.stat().st_size, count_statements(database)
        self._disk_bytes, self._cpu_seconds = self._read_disk_bytes(), self._read_cpu_seconds()
        self._start_time, self._peaks = time.monotonic(), (0, 0)
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()

    def finish(self) -> Load:
        """Return the counts."""
        self._done.set()
        self._sampler.join()
        log = read_access_log(self._log, self._position)
        statements = count_statements(self._database).since(self._statements)
        cpu_seconds = [
            after - before for before, after in zip(self._cpu_seconds, self._read_cpu_seconds(), strict=True)
        ]
        return Load(
            time.monotonic() - self._start_time,
            log.requests,
            log.failures,
            len(log.clients),
            *self._peaks,
            statements,
            *cpu_seconds,
            self._read_disk_bytes() - self._disk_bytes,
        )

    def _sample(self) -> None:
        while not self._done.wait(0.5):
            counts = count_connections(self._server, self._port, self._database)
            self._peaks = max(self._peaks[0], counts[0]), max(self._peaks[1], counts[1])
            self._deliveries.read()

    def _read_cpu_seconds(self) -> tuple[float, float, float]:
        database = psutil.Process(self._database.process_id)
        return core_seconds(self._server), core_seconds(database), self._deliveries.read()

    def _read_disk_bytes(self) -> int:
        return int(self._database.query("SELECT pg_total_relation_size('metrics')", "mlflow")[0][0])


def _wait_for(database: Postgres, condition: str, count: int) -> None:
    """Wait until a number of runs fulfill a condition."""
    query = f"SELECT count(DISTINCT run_uuid) FROM runs LEFT JOIN latest_metrics USING (run_uuid) WHERE {condition}"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (reached := database.query(query, "mlflow")[0][0]) != count:
        if time.monotonic() > deadline:
            raise SystemExit(f"Only {reached} of {count} runs reached {condition!r} after {TIMEOUT_SECONDS:.0f} s.")
        time.sleep(0.5)


def _check_points(database: Postgres) -> None:
    """Check that each data point is stored exactly once."""
    expected = RUNS * (1 + sum(rate.keys * rate.rows for rate in RATES.values()))
    query = "SELECT count(*), count(DISTINCT (run_uuid, key, step)) FROM metrics WHERE key != 'epoch'"
    (counts,) = database.query(query, "mlflow")
    if counts != (expected, expected):
        raise SystemExit(f"{expected:,} data points were logged, but {counts} are stored, in total and distinct.")


def measure_simulated_runs(folder: Path, database: Postgres, port: int, script: str) -> None:
    """Run all loads at a server with an empty database, and print the counts.

    Args:
        folder: Directory for the runs. It contains the log of the server.
        database: PostgreSQL of the server.
        port: Port of the server.
        script: Program that calls :func:`train`.
    """
    uri, log = f"http://127.0.0.1:{port}", folder / "server.log"
    loads: dict[str, Load] = {}
    with ExitStack() as stack:
        trainings: list[subprocess.Popen[str]] = []
        deliveries = DeliveryTimes(trainings)
        counter = LoadCounter(database, port, log, deliveries)
        for number in range(PROCESSES):
            command = [sys.executable, script, "train_simulated", str(folder / f"simulated-{number}"), uri]
            trainings.append(stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, text=True)))
        step = 1
        _wait_for(database, f"step = {step}", RUNS)
        loads["start"] = counter.finish()
        counter = LoadCounter(database, port, log, deliveries)
        time.sleep(IDLE_SECONDS)
        loads["idle"] = counter.finish()
        for name, rate in RATES.items():
            counter = LoadCounter(database, port, log, deliveries)
            for training in trainings:
                assert training.stdin
                print(name, file=training.stdin, flush=True)
            step += rate.rows
            _wait_for(database, f"step = {step}", RUNS)
            loads[name] = counter.finish()
        counter = LoadCounter(database, port, log, deliveries)
        for training in trainings:
            assert training.stdin
            training.stdin.close()
        _wait_for(database, "status = 'FINISHED'", RUNS)
        loads["end"] = counter.finish()
    _check_points(database)
    _print_loads(loads)


def _print_coefficients(loads: dict[Rate, Load]) -> None:
    """Print the CPU time of each request, of each key in a request, and of each data point."""
    amounts = [
        (load.num_requests, load.num_requests * rate.keys, load.statements.points) for rate, load in loads.items()
    ]
    for name in ("server", "database"):
        costs = np.linalg.solve(amounts, [getattr(load, name) * 1000 for load in loads.values()])
        request, key, point = (f"{milliseconds:.3f} ms" for milliseconds in costs)
        print(f"{name}: {request} per request, {key} per key of a request, {point} per data point")


def _print_loads(loads: dict[str, Load]) -> None:
    print()
    for name, load in loads.items():
        load.print_endpoints(name)
    table = Table(
        "Load", "Seconds", "Requests per run", "Requests/s", "Clients", "Connections", "PostgreSQL connections"
    )
    for header in ("Points", "Rows", "Commits", "Statements", "Log bytes/point", "Disk bytes/point"):
        table.add_column(header)
    for header in ("Server ms", "PostgreSQL ms", "Delivery ms"):
        table.add_column(f"{header}/request")
    for name, load in loads.items():
        requests, points = max(load.num_requests, 1), max(load.statements.points, 1)
        numbers = (
            load.seconds,
            load.num_requests / RUNS,
            load.num_requests / load.seconds,
            load.clients,
            load.connections,
            load.database_connections,
            load.statements.points,
            load.statements.rows,
            load.statements.commits / requests,
            load.statements.calls / requests,
            load.statements.log_bytes / points,
            load.disk_bytes / points,
            *(1000 * seconds / requests for seconds in (load.server, load.database, load.delivery)),
        )
        table.add_row(name, *(f"{number:,.0f}" if number >= 100 else f"{number:.3g}" for number in numbers))
    Console(width=200).print(table)
    _print_coefficients({rate: loads[name] for name, rate in RATES.items()})
    idle = loads["idle"]
    print(
        f"idle: delivery processes use {idle.delivery / idle.seconds / RUNS * 1000:.2f} ms of a core per second and run"
    )
    Figure(
        f"{RUNS} runs at one server: requests at the start", "per run", [loads["start"].num_requests / RUNS], "<= 7"
    ).publish()
    Figure(f"{RUNS} runs at one server: requests of idle runs", "per run", [idle.num_requests / RUNS], "<= 0").publish()
    name, rate = next(iter(RATES.items()))
    Figure(
        f"{RUNS} runs at one server: requests with {name}",
        "per row",
        [loads[name].num_requests / RUNS / rate.rows],
        "<= 1.05",
    ).publish()
