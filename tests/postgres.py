"""A PostgreSQL server for the tests, from Debian's package, without systemd and without a cluster of the machine's."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers import free_port

#: As root it refuses to start; Debian's package makes this user.
_USER = "postgres" if os.geteuid() == 0 else None


def find_missing_requirement() -> str | None:
    """Why there can be no server; None if there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'psycopg[binary]'"
    return None if _find_programs() else "PostgreSQL is not there: apt-get install postgresql"


def _find_programs() -> Path | None:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


class Postgres:
    """A running server on 127.0.0.1.

    Args:
        port: Where it listens.
        process_id: Its first process, the parent of all others.
    """

    def __init__(self, port: int, process_id: int) -> None:
        self._port, self.process_id = port, process_id

    def create(self, database: str, template: str = "template1") -> str:
        """Make a database, as a copy of one that nobody uses at the time; its URI for SQLAlchemy."""
        self.query(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/{database}"

    def query(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows that answer a query; none if it has no answer."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self._port, user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]  # it wants literals
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def postgres(**settings: str | int) -> Iterator[Postgres]:
    """A server with an empty cluster, in a folder of its own.

    Args:
        settings: Of its configuration, such as ``max_connections=300``.
    """
    programs = _find_programs()
    assert programs is not None, find_missing_requirement()
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", **settings}
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        if _USER:
            shutil.chown(name, _USER)

        def run(program: str, *words: str) -> None:
            # The folder that we are in may be closed to that user.
            subprocess.run(
                [programs / program, "--pgdata", f"{name}/data", *words],
                user=_USER,
                group=_USER,
                extra_groups=[] if _USER else None,
                cwd=name,
                check=True,
                stdout=subprocess.DEVNULL,
            )

        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        with open(f"{name}/data/postgresql.conf", "a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in settings.items())
        run("pg_ctl", "start", "--wait", f"--log={name}/log")
        try:
            yield Postgres(port, int(Path(name, "data", "postmaster.pid").read_text().split()[0]))
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
