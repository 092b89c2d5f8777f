"""MLflow credentials: read from the environment and never written, printed or passed as arguments."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking.testing import RecordedRun
from tests.postgres import Postgres
from tests.real_server.conftest import AuthServer
from tests.real_server.training import ITERATIONS, KILLED_IN

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]
SCRIPT = Path(__file__).with_name("training.py")
FETCH = """
import pathlib, sys, pte_backends.mlflow
print(pte_backends.mlflow.MLflowSink().fetch(sys.argv[1], pathlib.Path(sys.argv[2])).name)
"""


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, mlflow_environment: None) -> str:
    name = uuid.uuid4().hex
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    return name


@contextlib.contextmanager
def collect_command_lines() -> Iterator[set[str]]:
    """Collect the command lines of all running processes every 0.02 seconds."""
    command_lines: set[str] = set()
    stop = threading.Event()

    def collect() -> None:
        while not stop.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    command_lines.add(path.read_text(errors="replace").replace("\0", " "))

    watcher = threading.Thread(target=collect)
    watcher.start()
    try:
        yield command_lines
    finally:
        stop.set()
        watcher.join()


def make_environment(server: AuthServer, location: str, password: str | None = None) -> dict[str, str]:
    """Create an environment with the credentials in the tracking URI or in variables."""
    credentials = server._replace(password=password or server.password)
    if location == "in the URI":
        return {**os.environ, "MLFLOW_TRACKING_URI": credentials.uri_with_secrets}
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": credentials.uri,
        "MLFLOW_TRACKING_USERNAME": credentials.user,
        "MLFLOW_TRACKING_PASSWORD": credentials.password,
    }


def run_pte(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pte_tracking._cli", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def fetch(uri: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Fetch the checkpoint of a run, as ``resume()`` does."""
    command = [sys.executable, "-c", FETCH, uri, str(folder)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def read_steps(database: Postgres, experiment: str) -> list[int]:
    """Return the steps of the data points in the database of the server."""
    query = f"""SELECT step FROM metrics JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id)
        WHERE key = 'loss' AND experiments.name = '{experiment}' ORDER BY step"""
    return [step for (step,) in database.query(query, "auth_store")]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait up to 60 seconds. The delivery process takes seconds to import MLflow."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("location", ["in variables", "in the URI"])
def test_secrets_stay_in_environment(
    location: str, auth_server: AuthServer, database: Postgres, experiment: str, tmp_path: Path
) -> None:
    run, env = tmp_path / "run", make_environment(auth_server, location)
    with collect_command_lines() as command_lines:
        command = [sys.executable, str(SCRIPT), str(run), "-", "wait"]
        with subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as training:
            wait_until(lambda: Cursor.load(run, "mlflow").seq >= KILLED_IN)
            holder = lock.holder(run / DELIVERY_LOCK)
            assert holder is not None
            delivery_environment = Path("/proc", str(holder.pid), "environ").read_text()
            output, _ = training.communicate(timeout=60)
        assert training.returncode == 0, output
        synced = run_pte("sync", str(run), env=env)
        shown = run_pte("show", str(run), env=env)
        run_id = Cursor.load(run, "mlflow").state["run_id"]
        fetched = fetch(f"runs:/{run_id}", tmp_path, env)
    assert fetched.stdout == f"snapshot_iter_{ITERATIONS}\n", fetched.stderr
    assert read_steps(database, experiment) == [*range(1, ITERATIONS + 1)]
    for program in ("training.py", "pte_tracking._delivery.process", "pte_backends.mlflow"):
        assert any(program in line for line in command_lines), program
    written = [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert any(auth_server.uri in text for text in written)
    outputs = [output, synced.stdout, synced.stderr, shown.stdout, shown.stderr, fetched.stdout, fetched.stderr]
    for secret in (auth_server.password, auth_server.user):
        assert secret in delivery_environment
        assert not [text for text in [*written, *outputs, *command_lines] if secret in text]


def pending_lines(shown: str) -> list[str]:
    """Return the lines of ``pte-tracking show`` about pending events."""
    others = ("Sinks:", "Delivery:", "mlflow: http", "mlflow: run ID")
    return [line for line in shown.splitlines() if "mlflow" in line and not line.startswith(others)]


def test_wrong_password_prints_one_line_and_loses_nothing(
    auth_server: AuthServer, database: Postgres, experiment: str, tmp_path: Path
) -> None:
    run, wrong_password = tmp_path / "run", f"wrong-{uuid.uuid4().hex}"
    env = make_environment(auth_server, "in the URI", wrong_password)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(run), "-"], env=env, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: Cursor.load(run, "mlflow").error)
    shown = run_pte("show", str(run), env=env).stdout
    (line,) = pending_lines(shown)
    assert f"{auth_server.uri} rejected the credentials" in line
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert read_steps(database, experiment) == []
    failed = run_pte("sync", str(run), "--timeout", "1", env=env)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == line
    # The delivery process keeps running with the wrong password.
    wait_until(lambda: lock.is_held(run / DELIVERY_LOCK))
    synced = run_pte("sync", str(run), env=make_environment(auth_server, "in the URI"))
    assert synced.returncode == 0, synced.stderr
    assert read_steps(database, experiment) == [*range(1, ITERATIONS + 1)]
    assert pending_lines(run_pte("show", str(run), env=env).stdout) == []
    written = [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    outputs = [done.stderr, shown, failed.stderr, synced.stderr]
    assert not [text for text in [*written, *outputs] if wrong_password in text or auth_server.password in text]


def test_fetch_with_wrong_password_prints_one_line(
    auth_server: AuthServer, mlflow_environment: None, tmp_path: Path
) -> None:
    env = make_environment(auth_server, "in variables", "wrong_password")
    done = fetch(f"runs:/{uuid.uuid4().hex}", tmp_path, env)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ConnectionError: Fetching 'runs:/")
    assert "rejected the credentials" in last


def test_user_without_write_permission_raises_permission_error(
    auth_server: AuthServer, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deliver(name: str, user: str, password: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        RecordedRun(tmp_path / name, MLflowSink(auth_server.uri, experiment)).deliver()

    deliver("admin", auth_server.user, auth_server.password)
    guest = f"guest-{uuid.uuid4().hex}"
    body = json.dumps({"username": guest, "password": "a long password"}).encode()
    request = urllib.request.Request(f"{auth_server.uri}/api/2.0/mlflow/users/create", body)
    request.add_header("Content-Type", "application/json")
    credentials = b64encode(f"{auth_server.user}:{auth_server.password}".encode()).decode()
    request.add_header("Authorization", f"Basic {credentials}")
    urllib.request.urlopen(request, timeout=60).close()
    with pytest.raises(PermissionError, match="denied write access"):
        deliver("guest", guest, "a long password")
