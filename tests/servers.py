"""MLflow servers for tests, servers in threads, and a proxy that injects network and server failures."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

#: Disables telemetry, messages, and the server's seven job processes of 250 MB each.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
_HTTPServer = TypeVar("_HTTPServer", bound=http.server.HTTPServer)
_START_SECONDS = 180  # on a machine with many other processes


def make_store(path: Path) -> None:
    """Create an empty MLflow store in a SQLite file.

    This takes seconds. Create one template and copy it with :func:`copy_store`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow itself uses deprecated features of SQLAlchemy.
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "mlruns"))


def copy_store(template: Path, folder: Path) -> Path:
    """Copy a store to ``folder`` and set its artifact location to the same directory."""
    path = folder / "mlflow.db"
    with contextlib.closing(sqlite3.connect(template)) as source, contextlib.closing(sqlite3.connect(path)) as target:
        source.backup(target)
        target.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns" / "0"),))
        target.commit()
    return path


@contextlib.contextmanager
def mlflow_server(folder: Path, template: Path, environment: dict[str, str] | None = None) -> Iterator[str]:
    """Run an ``mlflow server`` with a SQLite store and proxied artifacts, and yield its URI.

    Args:
        folder: Directory for the store, the artifacts and the log.
        template: Store to copy.
        environment: Additional environment variables.
    """
    store = copy_store(template, folder)
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
        database.commit()
    with serve(folder, f"sqlite:///{store}", str(folder / "artifacts"), environment) as uri:
        yield uri


@contextlib.contextmanager
def serve(
    folder: Path,
    store: str,
    artifacts: str,
    environment: dict[str, str] | None = None,
    *options: str,
    workers: int = 1,
    port: int | None = None,
) -> Iterator[str]:
    """Run an ``mlflow server`` and yield its URI.

    Args:
        folder: Directory for the log.
        store: URI of the database.
        artifacts: Destination of the proxied artifacts.
        environment: Additional environment variables.
        options: Additional command-line options.
        workers: Number of worker processes.
        port: Port of the server. Defaults to a free port.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers), "--backend-store-uri", store, "--artifacts-destination", artifacts]
    with server_process([*command, *options], folder, f"http://127.0.0.1:{port}/health", environment):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def server_process(
    command: list[str], folder: Path, url: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a new process group, and wait until it responds at ``url``."""
    with open(folder / "server.log", "ab") as log:
        server = subprocess.Popen(
            command,
            env={**os.environ, **MLFLOW_ENVIRONMENT, **(environment or {})},
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait_until_ready(server, url, folder / "server.log")
        yield server
    finally:
        _end_group(server)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(
        f"{server.args!r} did not start within {_START_SECONDS} s. End of its log:\n{log.read_text()[-2000:]}"
    )


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(5)
            return


#: Treatment of a request: forward it and pass, lose or truncate the response, respond with an error, or do not respond.
Fate = Literal["pass", "lose", "cut", "fail", "overload", "busy", "miss", "hang"]

_FAILURES = {
    "fail": b"500 Broken",
    "overload": b"503 Service Unavailable",
    "busy": b"429 Too Many Requests",
    "miss": b"404 Not Found",
}


@contextlib.contextmanager
def serving(server: _HTTPServer) -> Iterator[_HTTPServer]:
    """Let a server answer requests in a thread, and close it at the end."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


class Proxy:
    """Proxy for a server on 127.0.0.1 that injects failures.

    Args:
        port: Port of the server.
        listen_on: Port of the proxy. Defaults to a free port.

    Attributes:
        uri: Address of the proxy.
        fate: Receives the first line of each request and returns its treatment.
        requests: First lines of all requests.
    """

    def __init__(self, port: int, listen_on: int = 0) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", listen_on))
        self._closing = threading.Event()
        self.uri = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.fate: Callable[[str], Fate] = lambda _: "pass"
        self.requests: list[str] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def once(self, words: str, fate: Fate) -> None:
        """Apply ``fate`` once, to the next request whose first line contains ``words``."""
        waiting = [fate]
        self.fate = lambda line: waiting.pop() if waiting and words in line else "pass"

    def close(self) -> None:
        self._closing.set()
        # close() does not interrupt accept() in the other thread. shutdown() does.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(30)
            request = _read_request(client)
            line = request.partition(b"\r\n")[0].decode("latin-1")
            self.requests.append(line)
            fate = self.fate(line)
            if fate == "hang":
                self._closing.wait(30)
                return
            if fate in _FAILURES:
                client.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % _FAILURES[fate])
                return
            response = self._forward(request)
            if fate == "cut":
                client.sendall(response[: response.index(b"\r\n") + 12])
            elif fate == "pass":
                client.sendall(response)

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._target), timeout=30) as server:
            server.sendall(request)
            response = b""
            while chunk := server.recv(1 << 16):
                response += chunk
            return response


def _read_request(client: socket.socket) -> bytes:
    """Read one request and set ``Connection: close``, so that the end of the response is known."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = client.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the client closed the connection")
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    length = next((int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        chunk = client.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the client closed the connection")
        body += chunk
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body
