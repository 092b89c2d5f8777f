"""``pte-tracking sync --follow``: one process delivers the runs of machines without network access."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.delivery_loop import deliver
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking._store.lock import Lock, is_held
from pte_tracking._store.manifest import RunNotFoundError
from tests import servers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]

TRAIN = """
import os, signal, sys, time
import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
directory, uri, first, last, ending = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
with pte.Run(directory, sinks=["json", MLflowSink(uri, "followed")], resume=first > 1) as run:
    for step in range(first, last + 1):
        run.log_metrics({"loss": step / 7}, step)
        time.sleep(0.01)
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


#: An address without a server.
UNREACHABLE_URI = "http://127.0.0.1:9"


def supported_prefix(*words: str) -> list[str]:
    """Return the words to put before a command, empty if this machine does not support them."""
    is_possible = shutil.which(words[0]) and not subprocess.run([*words, "true"], capture_output=True).returncode
    return [*words] if is_possible else []


def train(
    directory: Path, uri: str, first: int, last: int, ending: str = "end", prefix: list[str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a training without network access, except for the loopback interface."""
    prefix = supported_prefix("unshare", "--net", "--") if prefix is None else prefix
    command = [*prefix, sys.executable, "-c", TRAIN, str(directory), uri, str(first), str(last), ending]
    return subprocess.Popen(command, env={**os.environ, "PTE_TRACKING_DELIVERY": "off"})


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "pte_tracking._cli", "sync", "--follow", str(tmp_path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def delivered_runs(uri: str) -> dict[str, tuple[str, list[tuple[int, float]]]]:
    """Return status and data points of each run by the name of its directory."""
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
    """Wait until each run has its status, and each data point up to its last step once."""
    complete = {
        name: (run_status, [(step, step / 7) for step in range(1, last + 1)])
        for name, (run_status, last) in expected.items()
    }
    end = time.monotonic() + 60
    while (current := delivered_runs(uri)) != complete and time.monotonic() < end:
        time.sleep(0.5)
    assert current == complete


def test_follow_delivers_runs_that_start_and_end_without_network(
    follower: subprocess.Popen[str], mlflow_template: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    (tmp_path / "server").mkdir()
    with servers.mlflow_server(tmp_path / "server", mlflow_template) as uri:
        first, second = train(runs / "a", uri, 1, 300), train(runs / "deep" / "b", uri, 1, 200, "kill")
        assert first.wait(60) == 0
        assert second.wait(60) == -signal.SIGKILL
        assert not (runs / "a" / "delivery" / "log.txt").exists()  # no delivery process was started
        wait_for(uri, {"a": ("FINISHED", 300), "b": ("KILLED", 200)})
        assert train(runs / "deep" / "b", uri, 201, 300).wait(60) == 0
        assert train(runs / "c", uri, 1, 50).wait(60) == 0
        wait_for(uri, {"a": ("FINISHED", 300), "b": ("FINISHED", 300), "c": ("FINISHED", 50)})
        follower.send_signal(signal.SIGTERM)
        output, _ = follower.communicate(timeout=60)
        assert follower.returncode == 0
        assert f"{runs / 'a'}: FINISHED, all events delivered" in output


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("host", ["this", "another"])
def test_follow_new_run_in_same_directory_delivers_both_runs(
    host: str, follower: subprocess.Popen[str], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "a"
    on_host = supported_prefix("unshare", "--uts", "sh", "-c", 'hostname another && exec "$@"', "-")
    if host == "another" and not on_host:
        pytest.skip("a process cannot have a separate host name on this machine")
    prefix = on_host if host == "another" else []
    assert train(run, UNREACHABLE_URI, 1, 3, "kill", prefix).wait(60) == -signal.SIGKILL
    wait_until(lambda: is_held(run / DELIVERY_LOCK))
    assert train(run, UNREACHABLE_URI, 1, 3, prefix=prefix).wait(60) == 0
    (earlier,) = (run / "previous").iterdir()
    wait_until(lambda: is_held(earlier / DELIVERY_LOCK) and is_held(run / DELIVERY_LOCK))
    assert not (earlier / "delivery" / "log.txt").exists()  # delivery processes are disabled
    follower.send_signal(signal.SIGTERM)
    output, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert f"{earlier}: delivering" in output


def test_follow_skips_unreadable_and_locked_runs_with_one_message(
    follower: subprocess.Popen[str], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").symlink_to("run.json")
    assert train(tmp_path / "theirs", UNREACHABLE_URI, 1, 1).wait(60) == 0
    held_lock = Lock(tmp_path / "theirs" / DELIVERY_LOCK)
    (tmp_path / "theirs").rename(runs / "theirs")
    readable = train(runs / "readable", UNREACHABLE_URI, 1, 400)
    assert train(runs / "theirs", UNREACHABLE_URI, 2, 600).wait(60) == 0
    assert readable.wait(60) == 0
    assert is_held(runs / "readable" / DELIVERY_LOCK)
    follower.send_signal(signal.SIGTERM)
    output, _ = follower.communicate(timeout=60)
    held_lock.release()
    assert follower.returncode == 0
    assert output.count(f"{runs / 'theirs'}: another process delivers this run\n") == 1


def test_deliver_removed_run_ends_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    with pte.Run(tmp_path / "run", sinks=[MLflowSink(UNREACHABLE_URI, "x")]) as run:
        run.log_metrics({"loss": 1.0}, 1)

    def deliver_removed_run() -> None:
        with pytest.raises(RunNotFoundError):
            deliver(tmp_path / "run")

    delivering = threading.Thread(target=deliver_removed_run)
    delivering.start()
    wait_until(lambda: "deliver-mlflow" in [thread.name for thread in threading.enumerate()])
    shutil.rmtree(tmp_path / "run")
    delivering.join(30)
    wait_until(lambda: "deliver-mlflow" not in [thread.name for thread in threading.enumerate()])
