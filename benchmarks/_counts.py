"""Counts of what one MLflow server and its PostgreSQL database do for a load."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.postgres import Postgres

_LOG_LINE = re.compile(r'([\d.]+:\d+) - "\w+ /api/[\d.]+/mlflow/([\w/-]+)[^"]*" (\d+)')
_STATEMENTS = """
    SELECT upper(split_part(query, ' ', 1)), query LIKE 'INSERT INTO metrics %', sum(calls), sum(rows), sum(wal_bytes)
    FROM pg_stat_statements JOIN pg_database ON dbid = pg_database.oid WHERE datname = 'mlflow' GROUP BY 1, 2
"""
#: Settings of PostgreSQL that :func:`count_statements` requires.
SETTINGS = {"shared_preload_libraries": "pg_stat_statements"}


class AccessLog(NamedTuple):
    """Requests in the access log of an MLflow server.

    Attributes:
        requests: Number of requests by endpoint.
        failures: Number of responses with an error by status code.
        clients: Addresses and ports of the clients, one for each opened connection.
    """

    requests: Counter[str]
    failures: Counter[str]
    clients: set[str]


def read_access_log(path: Path, start: int = 0) -> AccessLog:
    """Read the requests that a server logged after a position of its log, in bytes."""
    with open(path) as file:
        file.seek(start)
        lines = _LOG_LINE.findall(file.read())
    return AccessLog(
        Counter(endpoint for _, endpoint, _ in lines),
        Counter(status for _, _, status in lines if not status.startswith("2")),
        {client for client, _, _ in lines},
    )


class Statements(NamedTuple):
    """Statements that PostgreSQL executed.

    Attributes:
        calls: Number of statements.
        commits: Number of committed transactions.
        points: Number of stored data points.
        rows: Number of inserted, changed, and deleted rows of all tables.
        log_bytes: Size of the written write-ahead log, in bytes.
    """

    calls: int
    commits: int
    points: int
    rows: int
    log_bytes: int

    def since(self, earlier: Statements) -> Statements:
        return Statements(*(late - early for early, late in zip(earlier, self, strict=True)))


def count_statements(database: Postgres) -> Statements:
    """Count the statements in the database ``mlflow`` since the start of PostgreSQL."""
    database.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    kinds = [
        (str(kind), bool(is_metric), *map(int, counts)) for kind, is_metric, *counts in database.query(_STATEMENTS)
    ]
    return Statements(
        calls=sum(calls for *_, calls, _, _ in kinds),
        commits=sum(calls for kind, _, calls, _, _ in kinds if kind.startswith("COMMIT")),
        points=sum(rows for _, is_metric, _, rows, _ in kinds if is_metric),
        rows=sum(rows for kind, _, _, rows, _ in kinds if kind in ("INSERT", "UPDATE", "DELETE")),
        log_bytes=sum(size for *_, size in kinds),
    )


def count_connections(server: psutil.Process, port: int, database: Postgres) -> tuple[int, int]:
    """Count the open connections of the clients to the server, and of the server to PostgreSQL."""
    processes = [server, *server.children(recursive=True)]
    connections = {item for process in processes for item in process.net_connections("tcp") if item.raddr}
    (database_connections,) = database.query("SELECT count(*) FROM pg_stat_activity WHERE datname = 'mlflow'")[0]
    return sum(item.laddr.port == port for item in connections), int(database_connections)
