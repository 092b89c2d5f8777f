"""What benchmarks of a server share: its processes, and what they have taken."""

from __future__ import annotations

import psutil

#: For ``mlflow server``: its pool of 15 connections a process runs dry at 50 clients.
ENVIRONMENT = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50"}
WORKERS = 2


def find_server(port: int) -> psutil.Process:
    """The first process of the ``mlflow server`` that listens there."""
    expected = {"server", "--port", str(port)}
    (server,) = (
        process for process in psutil.process_iter(["cmdline"]) if expected <= set(process.info["cmdline"] or [])
    )
    return server


def core_seconds(process: psutil.Process) -> float:
    """What a process and those that it has started have taken."""
    return sum(sum(member.cpu_times()[:2]) for member in (process, *process.children(recursive=True)))
