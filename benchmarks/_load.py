"""Helpers for benchmarks of an MLflow server: settings, processes, and CPU time."""

from __future__ import annotations

import psutil

#: Environment of ``mlflow server``. The default pool of 15 connections per process is too small for 50 clients.
ENVIRONMENT = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50"}
WORKERS = 2


def find_server(port: int) -> psutil.Process:
    """Return the parent process of the ``mlflow server`` that listens on a port."""
    expected = {"server", "--port", str(port)}
    (server,) = (
        process for process in psutil.process_iter(["cmdline"]) if expected <= set(process.info["cmdline"] or [])
    )
    return server


def core_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and its children, including those that ended, in seconds."""
    return sum(sum(member.cpu_times()[:4]) for member in (process, *process.children(recursive=True)))
