"""A server that asks for a password: it is found in the environment, and stays there."""

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
from tests.real_server.conftest import Guarded
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
def command_lines() -> Iterator[set[str]]:
    """The command lines of all processes that live meanwhile, but for the shortest-lived ones."""
    seen: set[str] = set()
    stop = threading.Event()

    def collect() -> None:
        while not stop.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_text(errors="replace").replace("\0", " "))

    watcher = threading.Thread(target=collect)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def environment(server: Guarded, where: str, password: str | None = None) -> dict[str, str]:
    """A user's environment with the secrets in one of the places where MLflow's users put them."""
    said = server._replace(password=password or server.password)
    if where == "in the URI":
        return {**os.environ, "MLFLOW_TRACKING_URI": said.uri_with_secrets}
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": said.uri,
        "MLFLOW_TRACKING_USERNAME": said.user,
        "MLFLOW_TRACKING_PASSWORD": said.password,
    }


def pte(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pte_tracking._cli", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def fetch(uri: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What a resume does first."""
    command = [sys.executable, "-c", FETCH, uri, str(folder)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def steps(database: Postgres, experiment: str) -> list[int]:
    """Those of the points that the server has."""
    query = f"""SELECT step FROM metrics JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id)
        WHERE key = 'loss' AND experiments.name = '{experiment}' ORDER BY step"""
    return [step for (step,) in database.ask(query, "guarded")]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what the delivery, which imports MLflow first, is about to do."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("where", ["in variables", "in the URI"])
def test_secrets_stay_in_environment(
    where: str, guarded_server: Guarded, database: Postgres, experiment: str, tmp_path: Path
) -> None:
    run, env = tmp_path / "run", environment(guarded_server, where)
    with command_lines() as seen:
        command = [sys.executable, str(SCRIPT), str(run), "-", "wait"]
        with subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as training:
            wait_until(lambda: Cursor.load(run, "mlflow").seq >= KILLED_IN)
            holder = lock.holder(run / DELIVERY_LOCK)
            assert holder is not None
            assert holder.pid is not None
            delivery = Path("/proc", str(holder.pid), "environ").read_text()
            said, _ = training.communicate(timeout=60)
        assert training.returncode == 0, said
        synced = pte("sync", str(run), env=env)
        shown = pte("show", str(run), env=env)
        run_id = Cursor.load(run, "mlflow").state["run_id"]
        fetched = fetch(f"runs:/{run_id}", tmp_path, env)
    assert fetched.stdout == f"snapshot_iter_{ITERATIONS}\n", fetched.stderr
    assert steps(database, experiment) == [*range(1, ITERATIONS + 1)]
    for program in ("training.py", "pte_tracking._delivery.process", "pte_backends.mlflow"):
        assert any(program in line for line in seen), program
    written = [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert any(guarded_server.uri in text for text in written)
    outputs = [said, synced.stdout, synced.stderr, shown.stdout, shown.stderr, fetched.stdout, fetched.stderr]
    for secret in (guarded_server.password, guarded_server.user):
        assert secret in delivery
        assert not [text for text in [*written, *outputs, *seen] if secret in text]


def pending_lines(shown: str) -> list[str]:
    """Return the lines of ``pte-tracking show`` about pending events."""
    return [line for line in shown.splitlines() if "mlflow" in line and not line.startswith(("Sinks:", "Delivery:"))]


def test_wrong_password_prints_one_line_and_loses_nothing(
    guarded_server: Guarded, database: Postgres, experiment: str, tmp_path: Path
) -> None:
    run, wrong = tmp_path / "run", f"wrong-{uuid.uuid4().hex}"
    env = environment(guarded_server, "in the URI", wrong)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(run), "-"], env=env, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: Cursor.load(run, "mlflow").error)
    shown = pte("show", str(run), env=env).stdout
    (line,) = pending_lines(shown)
    assert f"{guarded_server.uri} rejected the credentials" in line
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert steps(database, experiment) == []
    failed = pte("sync", str(run), "--timeout", "1", env=env)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == line
    # The process that delivers behind has the wrong one, for ever.
    wait_until(lambda: lock.is_held(run / DELIVERY_LOCK))
    synced = pte("sync", str(run), env=environment(guarded_server, "in the URI"))
    assert synced.returncode == 0, synced.stderr
    assert steps(database, experiment) == [*range(1, ITERATIONS + 1)]
    assert pending_lines(pte("show", str(run), env=env).stdout) == []
    written = [path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    outputs = [done.stderr, shown, failed.stderr, synced.stderr]
    assert not [text for text in [*written, *outputs] if wrong in text or guarded_server.password in text]


def test_fetch_with_wrong_password_prints_one_line(
    guarded_server: Guarded, mlflow_environment: None, tmp_path: Path
) -> None:
    env = environment(guarded_server, "in variables", "wrong")
    done = fetch(f"runs:/{uuid.uuid4().hex}", tmp_path, env)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ConnectionError: runs:/")
    assert "rejected the credentials" in last


def test_user_without_write_permission_raises_permission_error(
    guarded_server: Guarded, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deliver(name: str, user: str, password: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        RecordedRun(tmp_path / name, MLflowSink(guarded_server.uri, experiment)).deliver()

    deliver("theirs", guarded_server.user, guarded_server.password)
    guest = f"guest-{uuid.uuid4().hex}"
    body = json.dumps({"username": guest, "password": "a long password"}).encode()
    request = urllib.request.Request(f"{guarded_server.uri}/api/2.0/mlflow/users/create", body)
    request.add_header("Content-Type", "application/json")
    credentials = b64encode(f"{guarded_server.user}:{guarded_server.password}".encode()).decode()
    request.add_header("Authorization", f"Basic {credentials}")
    urllib.request.urlopen(request, timeout=10).close()
    with pytest.raises(PermissionError, match="denied write access"):
        deliver("ours", guest, "a long password")
