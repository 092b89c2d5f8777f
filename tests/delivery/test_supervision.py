"""Supervision of the delivery process by a training process, with real processes."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import pte_tracking as pte
from pte_tracking._delivery import shared_process
from pte_tracking._delivery.backlog import backlog
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking._store.manifest import Manifest
from tests.probe.fixtures import wait_until

pytestmark = pytest.mark.slow


def deliveries(directory: Path) -> list[psutil.Process]:
    holder = lock.holder(directory / DELIVERY_LOCK)
    return [psutil.Process(holder.pid)] if holder and holder.pid else []


def await_delivery(directory: Path, run: pte.Run) -> list[psutil.Process]:
    """Log rows until a delivery process runs."""
    for step in range(2, 400):
        run.log_metrics({"loss": 1.0}, step)
        if found := deliveries(directory):
            return found
        time.sleep(0.05)
    raise AssertionError("no delivery process")


def kill_deliveries(directory: Path) -> None:
    for process in deliveries(directory):
        process.kill()
        process.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[pte.Run]:
    run = pte.Run(tmp_path, sinks=["json", "tensorboard"], close_timeout=30)
    run.log_metrics({"loss": 1.0}, 1)
    await_delivery(tmp_path, run)
    yield run
    run.close()
    shared_process.leave_processes()
    kill_deliveries(tmp_path)


def test_clock_that_is_set_back_does_not_delay_restart(
    tmp_path: Path, run: pte.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_deliveries(tmp_path)
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() - 3600)
    assert await_delivery(tmp_path, run)


def test_no_free_descriptor_raises_nothing_and_delays_delivery(
    tmp_path: Path, run: pte.Run, caplog: pytest.LogCaptureFixture
) -> None:
    resource = pytest.importorskip("resource")
    kill_deliveries(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    used = max(int(name) for name in os.listdir("/dev/fd")) + 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        end = time.monotonic() + 5
        while time.monotonic() < end:
            run.log_metrics({"loss": 1.0}, 1)
            time.sleep(0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)
    assert caplog.text.count("cannot start the delivery process") == 1
    assert await_delivery(tmp_path, run)
    run.close()
    assert backlog(tmp_path, Manifest.load(tmp_path)) == []


def test_repeated_deaths_do_not_delay_delivery_at_the_end(tmp_path: Path, run: pte.Run) -> None:
    for _ in range(2):
        kill_deliveries(tmp_path)
        await_delivery(tmp_path, run)
    kill_deliveries(tmp_path)
    run.close()
    assert backlog(tmp_path, Manifest.load(tmp_path)) == []


def check_that_nobody_delivers(run: pte.Run, caplog: pytest.LogCaptureFixture) -> None:
    run.close()
    assert "No process delivers the rest." in caplog.text
    assert f"pte-tracking sync {run.directory}" in caplog.text
    assert "in the background" not in caplog.text
    assert "is starting" not in caplog.text


def fail_to_fork(*arguments: object, **options: object) -> None:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_end_without_free_process_says_that_nothing_delivers(
    tmp_path: Path, run: pte.Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kill_deliveries(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", fail_to_fork)
    monkeypatch.setattr(run, "_close_timeout", 0.5)
    check_that_nobody_delivers(run, caplog)
    assert caplog.text.count("cannot start the delivery process") == 1


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\nsleep 0.1\nkill -9 $$\n", None])
def test_end_with_program_that_dies_or_is_removed_says_that_nothing_delivers(
    tmp_path: Path, program: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "python"
    if program:
        path.write_text(program)
        path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    run = pte.Run(tmp_path / "run", sinks=["json", "tensorboard"], close_timeout=3)
    run.log_metrics({"loss": 1.0}, 1)
    check_that_nobody_delivers(run, caplog)
    shared_process.leave_processes()


def test_process_that_dies_during_the_wait_is_restarted(
    tmp_path: Path, run: pte.Run, caplog: pytest.LogCaptureFixture
) -> None:
    killed: list[int] = []

    def kill_three() -> None:
        while len(killed) < 3:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in deliveries(tmp_path):
                    if process.pid not in killed:
                        killed.append(process.pid)
                        process.kill()
            time.sleep(0.001)

    for step in range(2, 20_000):
        run.log_metrics({"loss": 1.0}, step)
    thread = threading.Thread(target=kill_three)
    thread.start()
    run.close()
    thread.join()
    assert len(killed) == 3
    assert backlog(tmp_path, Manifest.load(tmp_path)) == []
    assert "No process delivers" not in caplog.text


def test_process_that_is_killed_after_the_end_is_restarted_at_exit(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, time, pte_tracking as pte
from pte_tracking._store import lock
os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
with pte.Run({str(tmp_path / "run")!r}, sinks=["json", "mlflow"], close_timeout=0.1) as run:
    run.log_metrics({{"loss": 1.0}}, 1)
holder = lock.holder(run.directory / "delivery/lock")
os.kill(holder.pid, 9)
time.sleep(0.2)
print(holder.pid)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    path = tmp_path / "run" / DELIVERY_LOCK
    wait_until(lambda: lock.is_held(path))
    holder = lock.holder(path)
    assert holder is not None
    assert holder.pid is not None
    assert str(holder.pid) != done.stdout.strip()
    os.kill(holder.pid, 9)
