"""PostgreSQL server for tests, from Debian's package and with a temporary cluster."""

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

#: PostgreSQL refuses to run as root. Debian's package creates this user.
_USER = "postgres" if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def find_missing_requirement() -> str | None:
    """Return a message if a requirement is missing, or None if the server can run."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed. Run: pip install 'psycopg[binary]'"
    return None if _find_programs() else "PostgreSQL is not installed. Run: apt-get install postgresql"


def _find_programs() -> Path | None:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


class Postgres:
    """Running server on 127.0.0.1.

    Args:
        port: Port of the server.
        process_id: ID of the postmaster, the parent of all server processes.
    """

    def __init__(self, port: int, process_id: int) -> None:
        self._port, self.process_id = port, process_id

    def create(self, database: str, template: str = "template1") -> str:
        """Create a database from a template without open connections, and return its SQLAlchemy URI."""
        self.query(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/{database}"

    def query(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows, or an empty list if it returns none."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self._port, user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]  # psycopg expects a LiteralString
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def postgres(**settings: str | int) -> Iterator[Postgres]:
    """Run a server with an empty cluster in a temporary directory.

    Args:
        settings: Entries of ``postgresql.conf``, such as ``max_connections=300``.
    """
    programs = _find_programs()
    assert programs is not None, find_missing_requirement()
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", **settings}
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        if _USER:
            shutil.chown(name, _USER)

        def run(program: str, *words: str) -> None:
            # The PostgreSQL user may not be able to read the current directory.
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
