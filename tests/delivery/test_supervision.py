"""Supervision of the delivery process by a training process, with real processes."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import pte_tracking as pte
from pte_tracking._delivery import supervisor
from pte_tracking._delivery.backlog import backlog
from pte_tracking._store.manifest import Manifest

pytestmark = pytest.mark.slow


def deliveries(directory: Path) -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and str(directory) in child.cmdline()]


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
    for _ in range(3):
        kill_deliveries(tmp_path)
        await_delivery(tmp_path, run)
    kill_deliveries(tmp_path)
    run.close()
    assert backlog(tmp_path, Manifest.load(tmp_path)) == []


def fail(*arguments: object) -> None:
    raise OSError("no memory")


def test_end_without_delivery_process_says_that_nothing_delivers(
    tmp_path: Path, run: pte.Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kill_deliveries(tmp_path)

    monkeypatch.setattr(supervisor, "hand_over", fail)
    monkeypatch.setattr(run, "_close_timeout", 0.5)
    run.close()
    assert "No process delivers the rest." in caplog.text
    assert f"pte-tracking sync {tmp_path}" in caplog.text
    assert "in the background" not in caplog.text
