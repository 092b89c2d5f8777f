"""Training scripts in separate processes, and the MLflow runs that they create."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]

SCRIPT = """
import os, signal, sys
import pte_tracking as pte
run = pte.Run("result", sinks=["mlflow"], params={"lr": 0.1})
for step in range(1, 101):
    run.log_metrics({"loss": 1 / step}, step)
"""


def run_script(uri: str, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT + code]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def wait_for_run(uri: str, status: str) -> Run:
    """Return the only run when it has the given status. The delivery process may still be running."""
    client = MlflowClient(uri)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        result = client.search_runs(["0"])
        if len(result) == 1 and result[0].info.status == status:
            history = client.get_metric_history(result[0].info.run_id, "loss")
            assert sorted(metric.step for metric in history) == list(range(1, 101))
            return result[0]
        time.sleep(0.2)
    pytest.fail(f"not {status} after a minute: {[(run.info.status, run.data.metrics) for run in result]}")


@pytest.mark.parametrize(
    ("script_end", "status", "code"),
    [
        ("run.close()", "FINISHED", 0),
        ("", "FINISHED", 0),
        ("raise ValueError('x')", "FAILED", 1),
        ("os.kill(os.getpid(), 9)", "KILLED", -9),
    ],
)
def test_script_end_sets_run_status(mlflow_store: str, script_end: str, status: str, code: int) -> None:
    completed = run_script(mlflow_store, script_end)
    assert completed.returncode == code, completed.stderr
    result = wait_for_run(mlflow_store, status)
    assert result.data.params == {"lr": "0.1"}


def test_killed_script_resumes_same_run(mlflow_store: str) -> None:
    run_script(mlflow_store, "os.kill(os.getpid(), signal.SIGKILL)")
    first = wait_for_run(mlflow_store, "KILLED")
    resume_script = (
        SCRIPT.replace("params=", "resume=True, params=").replace("0.1", "0.2").replace("range(1, 101)", "[]")
    )
    command = [sys.executable, "-c", resume_script + "run.log_text('a', 'b'); run.close()"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    subprocess.run(command, env=environment, timeout=100, check=True)
    second = wait_for_run(mlflow_store, "FINISHED")
    assert (second.info.run_id, second.data.params) == (first.info.run_id, {"lr": "0.1"})
    assert second.data.tags["pte.param.lr"] == "0.2"


@pytest.mark.parametrize(
    ("script_end", "status"),
    [("", "FINISHED"), ("raise ValueError('x')", "FAILED"), ("os.kill(os.getpid(), signal.SIGKILL)", "KILLED")],
)
def test_active_run_of_script_is_joined(mlflow_store: str, script_end: str, status: str) -> None:
    close = "" if status == "KILLED" else "run.close()\n"
    script = "import mlflow\nwith mlflow.start_run(run_name='theirs'):\n"
    script += textwrap.indent(SCRIPT + close + script_end, "    ")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_store}
    completed = subprocess.run(
        [sys.executable, "-c", script], env=environment, timeout=100, check=False, capture_output=True
    )
    assert completed.returncode == {"FINISHED": 0, "FAILED": 1}.get(status, -signal.SIGKILL), completed.stderr
    assert wait_for_run(mlflow_store, status).info.run_name == "theirs"


def test_secrets_in_tracking_uri_are_never_written(tmp_path: Path) -> None:
    script_end = """
import subprocess, time
time.sleep(5)
print(subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout)
run._close_timeout = 1
"""
    # No server listens on port 9, so an error message with the address is written too.
    completed = run_script("http://me:s3cret@127.0.0.1:9", script_end)
    assert completed.returncode == 0
    assert "pte_tracking._delivery.process" in completed.stdout
    (pid,) = (
        int(line.split()[0]) for line in completed.stdout.splitlines() if str(tmp_path) in line and "delivery" in line
    )
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while lock.is_held(Path("result", DELIVERY_LOCK)):  # The delivery process is still running.
        assert time.monotonic() < deadline
        time.sleep(0.05)
    written = [path.read_text() for path in Path("result").rglob("*") if path.is_file()]
    assert any("127.0.0.1" in text for text in written)
    assert not any("s3cret" in text for text in [*written, completed.stdout, completed.stderr])
