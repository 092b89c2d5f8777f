"""Capacity of one MLflow server with PostgreSQL.

``python benchmarks/server_load.py`` (requires PostgreSQL)

1, 8, and 50 clients send ``log_batch`` requests with 1, 100, and 1,000 values. The clients send plain HTTP over
persistent connections, so that they use little CPU time. The table has one line per combination: requests and data
points per second, median and longest response time in ms, CPU time of the server and of PostgreSQL per request in ms,
and the number of database connections.
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
from _load import ENVIRONMENT, WORKERS, core_seconds, find_server
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from tests import servers
from tests.postgres import Postgres, find_missing_requirement, postgres

SIZES, CLIENTS, SECONDS = (1, 100, 1000), (1, 8, 50), 6.0


def send(port: int, run_id: str, size: int, until: float, latencies: list[float]) -> None:
    """Send requests until a deadline and append the response times to ``latencies``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    step = 0
    while time.monotonic() < until:
        metrics = [{"key": "loss", "value": 0.5, "timestamp": 1, "step": step + number} for number in range(size)]
        step += size
        body = json.dumps({"run_id": run_id, "metrics": metrics})
        start = time.monotonic()
        connection.request("POST", "/api/2.0/mlflow/runs/log-batch", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(content.decode())
        latencies.append(time.monotonic() - start)
    connection.close()


def measure(port: int, database: Postgres, size: int, clients: int) -> list[str]:
    """Return one line of the table."""
    client = MlflowClient(f"http://127.0.0.1:{port}")
    runs = [client.create_run("0").info.run_id for _ in range(clients)]
    latencies: list[float] = []
    server, postgres_process = find_server(port), psutil.Process(database.process_id)
    before = core_seconds(server), core_seconds(postgres_process)
    start = time.monotonic()
    threads = [threading.Thread(target=send, args=(port, run, size, start + SECONDS, latencies)) for run in runs]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 2)
    (connections,) = database.query("SELECT count(*) FROM pg_stat_activity WHERE datname = 'mlflow'")[0]
    for thread in threads:
        thread.join()
    elapsed, requests = time.monotonic() - start, len(latencies)
    after = core_seconds(server), core_seconds(postgres_process)
    cost = [(late - early) / requests * 1000 for early, late in zip(before, after, strict=True)]
    return [
        *(f"{count:,}" for count in (size, clients)),
        f"{requests / elapsed:,.1f}",
        f"{requests * size / elapsed:,.0f}",
        f"{statistics.median(latencies) * 1000:,.0f}",
        f"{max(latencies) * 1000:,.0f}",
        *(f"{milliseconds:,.1f}" for milliseconds in cost),
        str(connections),
    ]


def main() -> None:
    if reason := find_missing_requirement():
        raise SystemExit(reason)
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    headers = "Values", "Clients", "Requests/s", "Points/s", "Median ms", "Longest ms", "Server ms", "PostgreSQL ms"
    table = Table(*headers, "Connections")
    port = servers.free_port()
    with tempfile.TemporaryDirectory() as name, postgres(max_connections=200) as database:
        store = database.create("mlflow")
        with servers.serve(Path(name), store, f"{name}/artifacts", ENVIRONMENT, workers=WORKERS, port=port):
            for size in SIZES:
                for clients in CLIENTS:
                    table.add_row(*measure(port, database, size, clients))
            size, num_points = database.query(
                "SELECT pg_total_relation_size('metrics'), count(*) FROM metrics", "mlflow"
            )[0]
    Console(width=140).print(table)
    print(
        f"PostgreSQL uses {size / num_points:.0f} bytes per data point, including indexes ({num_points:,} data points)"
    )


if __name__ == "__main__":
    main()
