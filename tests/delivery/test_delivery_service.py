"""Delivery of several runs in one process, also if a server never returns or no thread is free."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pte_tracking as pte
from pte_tracking._delivery import process, run_log
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.give_up import MAX_FAILING_SECONDS, GiveUpTimer
from pte_tracking._delivery.process import DeliveryService
from pte_tracking._delivery.sync import sync
from pte_tracking._platform.processes import wait_for_input
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK, DELIVERY_LOG
from pte_tracking._store.manifest import Manifest
from tests.cli.invocation import invoke
from tests.probe.fixtures import wait_until

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


@pytest.fixture
def run(tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> pte.Run:
    """Run that no process delivers, and whose server is away."""
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    probe.control(fail="away")
    run = pte.Run(tmp_path / "run", sinks=[probe.sink()])
    run.log_metrics({"loss": 1.0}, 1)
    return run


@pytest.fixture(autouse=True)
def _run_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the messages of this process where the delivery process writes them."""
    handler = run_log._RunLogHandler()
    monkeypatch.setattr(process._logger, "handlers", [handler])
    handler.setFormatter(run_log.SafeFormatter("%(asctime)s %(levelname)s %(message)s"))


def deliver(directory: Path, max_failing_seconds: float) -> None:
    """Deliver a run as the delivery process does after the end of the training process."""
    reading, writing = os.pipe()
    os.close(writing)
    try:
        DeliveryService(reading, max_failing_seconds).run([directory])
    finally:
        os.close(reading)


def test_delivery_ends_when_server_never_returns_and_names_the_command(run: pte.Run, probe: Probe) -> None:
    run.close()
    deliver(run.directory, 0.5)
    lines = (run.directory / DELIVERY_LOG).read_text().splitlines()
    (line,) = [line for line in lines if "Delivery ended" in line]
    assert line.endswith(f"run: pte-tracking sync {run.directory}")
    assert not lock.is_held(run.directory / DELIVERY_LOCK)
    assert f"run: pte-tracking sync {run.directory}" in invoke("show", run.directory).output
    probe.control()
    assert sync(run.directory, timeout=60) == []


def test_delivery_continues_while_the_training_runs(run: pte.Run, probe: Probe) -> None:
    thread = threading.Thread(target=deliver, args=(run.directory, 0.2))
    thread.start()
    thread.join(2.0)
    assert thread.is_alive()
    assert "Delivery ended" not in _read(run.directory / DELIVERY_LOG)
    run.close()
    thread.join(60.0)
    assert not thread.is_alive()
    assert "Delivery ended" in (run.directory / DELIVERY_LOG).read_text()


def test_success_of_another_sink_restarts_the_time(
    tmp_path: Path, run: pte.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    run.close()
    timer = GiveUpTimer(run.directory, 3600.0)
    now += 3601.0
    assert not timer.is_over(3599.0)
    assert timer.is_over(3601.0)


def test_default_time_is_one_day() -> None:
    assert MAX_FAILING_SECONDS == 24 * 3600


def test_delivery_that_ended_does_not_stop_other_runs(
    tmp_path: Path, run: pte.Run, probes: Callable[[str], Probe]
) -> None:
    run.close()
    other = pte.Run(tmp_path / "other", sinks=[probes("other").sink()])
    other.log_metrics({"loss": 1.0}, 1)
    reading, writing = os.pipe()
    os.write(writing, os.fsencode(run.directory) + b"\0")  # a repeated request
    thread = threading.Thread(target=DeliveryService(reading, 0.3).run, args=([run.directory],))
    thread.start()
    wait_until(lambda: "Delivery ended" in _read(run.directory / DELIVERY_LOG))
    os.write(writing, os.fsencode(other.directory) + b"\0")
    wait_until(lambda: probes("other").points())
    other.close()
    os.close(writing)
    thread.join(60.0)
    os.close(reading)
    assert backlog(other.directory, Manifest.load(other.directory)) == []
    assert _read(run.directory / DELIVERY_LOG).count("Delivery ended") == 1


def test_run_that_cannot_be_read_does_not_stop_other_runs(tmp_path: Path, run: pte.Run, probe: Probe) -> None:
    run.close()
    probe.control()
    (tmp_path / "no run").mkdir()
    reading, writing = os.pipe()
    os.write(writing, b"\0".join(map(os.fsencode, (tmp_path / "missing", tmp_path / "no run", run.directory))) + b"\0")
    os.close(writing)
    DeliveryService(reading).run([])
    os.close(reading)
    assert backlog(run.directory, Manifest.load(run.directory)) == []
    assert not (tmp_path / "missing").exists()


def test_request_in_several_parts_is_read_as_one(tmp_path: Path, run: pte.Run, probe: Probe) -> None:
    run.close()
    probe.control()
    reading, writing = os.pipe()
    thread = threading.Thread(target=DeliveryService(reading).run, args=([],))
    thread.start()
    request = os.fsencode(run.directory) + b"\0"
    for part in (request[:5], request[5:]):
        os.write(writing, part)
        wait_until(lambda: not _unread(reading))
    os.close(writing)
    thread.join(60.0)
    os.close(reading)
    assert backlog(run.directory, Manifest.load(run.directory)) == []


def test_runs_requested_through_high_descriptor_are_delivered(run: pte.Run, probe: Probe) -> None:
    run.close()
    probe.control()
    reading, writing = os.pipe()
    os.write(writing, os.fsencode(run.directory) + b"\0")
    os.close(writing)
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, 1024)  # the first one that select() refuses
    try:
        DeliveryService(high).run([])
    finally:
        os.close(reading)
        os.close(high)
    assert backlog(run.directory, Manifest.load(run.directory)) == []


def _unread(descriptor: int) -> bool:
    return wait_for_input(descriptor, 0)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_run_waits_while_no_thread_can_be_started(run: pte.Run, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    run.close()
    probe.control()
    start, failures = threading.Thread.start, [RuntimeError("can't start new thread")] * 3

    def start_or_fail(thread: threading.Thread) -> None:
        if failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    deliver(run.directory, 60.0)
    assert not failures
    assert backlog(run.directory, Manifest.load(run.directory)) == []


def test_run_that_is_requested_again_at_its_end_is_delivered_again(run: pte.Run, probe: Probe) -> None:
    """A resume may hand over a run while the thread of its earlier session ends."""
    probe.control()
    reading, writing = os.pipe()
    thread = threading.Thread(target=DeliveryService(reading).run, args=([run.directory],))
    thread.start()
    request = os.fsencode(run.directory) + b"\0"
    for step in range(2, 12):
        run.close()
        os.write(writing, request)
        run.log_metrics({"loss": 1.0}, step)  # opens the run again
        os.write(writing, request)
        wait_until(lambda: probe.points()[-1:] == [("loss", step, 1.0)])  # noqa: B023
    run.close()
    os.close(writing)
    thread.join(60.0)
    os.close(reading)
    assert backlog(run.directory, Manifest.load(run.directory)) == []
