"""What benchmarks of a server share: its processes, and what they have taken."""

from __future__ import annotations

import psutil

#: For ``mlflow server``: its pool of 15 connections a process runs dry at 50 clients.
ENVIRONMENT = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50"}
WORKERS = 2


def server_at(port: int) -> psutil.Process:
    """The first process of the ``mlflow server`` that listens there."""
    words = {"server", "--port", str(port)}
    (found,) = (one for one in psutil.process_iter(["cmdline"]) if words <= set(one.info["cmdline"] or []))
    return found


def core_seconds(process: psutil.Process) -> float:
    """What a process and those that it has started have taken."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))
