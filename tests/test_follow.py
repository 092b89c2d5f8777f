"""``pte-tracking sync --follow``: one process delivers the runs of machines that have no way out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests import servers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]

TRAIN = """
import os, signal, sys, time
import pte_tracking as pte
from pte_mlflow import MLflowSink
directory, uri, first, last, ending = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
with pte.Run(directory, sinks=["json", MLflowSink(uri, "followed")], resume=first > 1) as run:
    for step in range(first, last + 1):
        run.log_metrics({"loss": step / 7}, step)
        time.sleep(0.01)
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def without_network() -> list[str]:
    """What to put before a command so that it has no network but its own loopback, if that is possible here."""
    words = ["unshare", "--net", "--"]
    is_possible = shutil.which("unshare") and not subprocess.run([*words, "true"], capture_output=True).returncode
    return words if is_possible else []


def train(directory: Path, uri: str, first: int, last: int, ending: str = "end") -> subprocess.Popen[bytes]:
    command = [*without_network(), sys.executable, "-c", TRAIN, str(directory), uri, str(first), str(last), ending]
    return subprocess.Popen(command, env={**os.environ, "PTE_TRACKING_DELIVERY": "off"})


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "pte_tracking.cli", "sync", "--follow", str(tmp_path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def found(uri: str) -> dict[str, tuple[str, list[tuple[int, float]]]]:
    """Status and points of each run by the name of its directory."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("followed")
    if experiment is None:
        return {}
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        history = client.get_metric_history(run.info.run_id, "loss")
        name = run.info.run_name.rpartition("-")[0]
        assert name not in runs
        runs[name] = (run.info.status, sorted((point.step, point.value) for point in history))
    return runs


def wait_for(uri: str, expected: dict[str, tuple[str, int]]) -> None:
    """Until each run has its status and all points up to its last step, each once."""
    whole = {name: (how, [(step, step / 7) for step in range(1, last + 1)]) for name, (how, last) in expected.items()}
    end = time.monotonic() + 60
    while (now := found(uri)) != whole and time.monotonic() < end:
        time.sleep(0.5)
    assert now == whole


def test_runs_without_a_network_are_delivered_as_they_come_and_go(
    follower: subprocess.Popen[str], mlflow_template: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    (tmp_path / "server").mkdir()
    with servers.mlflow_server(tmp_path / "server", mlflow_template) as uri:
        first, second = train(runs / "a", uri, 1, 300), train(runs / "deep" / "b", uri, 1, 200, "kill")
        assert first.wait(60) == 0
        assert second.wait(60) == -signal.SIGKILL
        assert not (runs / "a" / "delivery" / "log.txt").exists()  # no delivery process was started there
        wait_for(uri, {"a": ("FINISHED", 300), "b": ("KILLED", 200)})
        assert train(runs / "deep" / "b", uri, 201, 300).wait(60) == 0
        assert train(runs / "c", uri, 1, 50).wait(60) == 0
        wait_for(uri, {"a": ("FINISHED", 300), "b": ("FINISHED", 300), "c": ("FINISHED", 50)})
        follower.send_signal(signal.SIGTERM)
        said, _ = follower.communicate(timeout=20)
        assert follower.returncode == 0
        assert f"{runs / 'a'}: FINISHED, everything is delivered" in said
