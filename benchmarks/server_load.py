"""What one MLflow server on PostgreSQL carries: ``log_batch`` of 1, 100 and 1,000 values by 1, 8 and 50 clients.

``python benchmarks/server_load.py`` prints a line for each: points and requests a second, how long a client waits, what
a request costs the server and PostgreSQL in milliseconds of a core, and how many connections that took. The requests
are plain HTTP over connections that stay open, so that the clients cost little.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psutil
from _load import ENVIRONMENT, WORKERS, core_seconds, server_at
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from tests import servers
from tests.postgres import Postgres, find_missing_requirement, postgres

SIZES, CLIENTS, SECONDS = (1, 100, 1000), (1, 8, 50), 6.0


def send(port: int, run_id: str, size: int, until: float, waited: list[float]) -> None:
    """Send one request after the other; how long each took is left in ``waited``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    step = 0
    while time.monotonic() < until:
        metrics = [{"key": "loss", "value": 0.5, "timestamp": 1, "step": step + number} for number in range(size)]
        step += size
        body = json.dumps({"run_id": run_id, "metrics": metrics})
        begun = time.monotonic()
        connection.request("POST", "/api/2.0/mlflow/runs/log-batch", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(content.decode())
        waited.append(time.monotonic() - begun)
    connection.close()


def measure(port: int, database: Postgres, size: int, clients: int) -> list[str]:
    """One line of the table."""
    client = MlflowClient(f"http://127.0.0.1:{port}")
    runs = [client.create_run("0").info.run_id for _ in range(clients)]
    waited: list[float] = []
    server, base = server_at(port), psutil.Process(database.process_id)
    before = core_seconds(server), core_seconds(base)
    begun = time.monotonic()
    threads = [threading.Thread(target=send, args=(port, run, size, begun + SECONDS, waited)) for run in runs]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 2)
    (connections,) = database.query("SELECT count(*) FROM pg_stat_activity WHERE datname = 'mlflow'")[0]
    for thread in threads:
        thread.join()
    taken, asked = time.monotonic() - begun, len(waited)
    after = core_seconds(server), core_seconds(base)
    cost = [(late - early) / asked * 1000 for early, late in zip(before, after, strict=True)]
    return [
        *(f"{one:,}" for one in (size, clients)),
        f"{asked / taken:,.1f}",
        f"{asked * size / taken:,.0f}",
        f"{statistics.median(waited) * 1000:,.0f}",
        f"{max(waited) * 1000:,.0f}",
        *(f"{one:,.1f}" for one in cost),
        str(connections),
    ]


def main() -> None:
    if reason := find_missing_requirement():
        raise SystemExit(reason)
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    headings = "values", "clients", "requests/s", "points/s", "median ms", "longest ms", "server ms", "PostgreSQL ms"
    table = Table(*headings, "connections")
    port = servers.free_port()
    with tempfile.TemporaryDirectory() as name, postgres(max_connections=200) as database:
        store = database.create("mlflow")
        with servers.serve(Path(name), store, f"{name}/artifacts", ENVIRONMENT, workers=WORKERS, port=port):
            for size in SIZES:
                for clients in CLIENTS:
                    table.add_row(*measure(port, database, size, clients))
            size, points = database.query("SELECT pg_total_relation_size('metrics'), count(*) FROM metrics", "mlflow")[
                0
            ]
    Console(width=140).print(table)
    print(f"a point takes {size / points:.0f} bytes of PostgreSQL, its indexes included ({points:,} points)")


if __name__ == "__main__":
    main()
