"""Ctrl-C while the end of a training waits for delivery."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pte_tracking._delivery.sync import sync
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from tests.probe.fixtures import wait_until

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe

pytestmark = pytest.mark.slow

HEAD = """
import sys
import pte_tracking as pte
from pte_probe import ProbeSink

def start(name):
    run = pte.Run(f"{sys.argv[1]}/{name}", sinks=["json", ProbeSink(folder=sys.argv[2])], close_timeout=600)
    run.log_metrics({"loss": 1.0}, 1)
    return run

"""
MANAGER = """
import torch

model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with pte.ExtensionsManager(
    model, 1, [pte.extensions.LogReport(trigger=(1, "iteration"))], optimizers=optimizer, iters_per_epoch=3,
    out_dir=f"{sys.argv[1]}/run", sinks=["json", ProbeSink(folder=sys.argv[2])], close_timeout=600,
) as manager:
    while not manager.stop_trigger:
        with manager.run_iteration():
            pte.report({"loss": 1.0})
"""
#: Script, and whether its own code is interrupted, so that it ends as after every other Ctrl-C.
ENDS = {
    "close": ("run = start('run')\nrun.close()", True),
    "with block": ("with start('run'):\n    pass", True),
    "manager": (MANAGER, True),
    "interpreter exit": ("run = start('run')", False),
    "exit after collection": ("for name in ('run', 'second', 'third'):\n    run = start(name)\n    del run", False),
    "close of the first of several": (
        "run, others = start('run'), [start('second'), start('third')]\nrun.close()",
        True,
    ),
}


def statuses_after(end: str) -> set[str]:
    """Return the statuses of the runs. The interrupt is the end of those that are still open."""
    return {"FINISHED", "KILLED"} if end == "close of the first of several" else {"FINISHED"}


@pytest.fixture
def trainings(tmp_path: Path, probe: Probe) -> Iterator[list[subprocess.Popen[str]]]:
    probe.control(fail="away")
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()
    for path in tmp_path.rglob(DELIVERY_LOCK):
        holder = lock.holder(path)
        if holder and holder.pid:
            psutil.Process(holder.pid).kill()


def wait_for_end(
    script: str, tmp_path: Path, probe: Probe, trainings: list[subprocess.Popen[str]]
) -> subprocess.Popen[str]:
    """Start a training that is alone in its process group, and return it while its end waits for the delivery."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(script), tmp_path, probe.folder],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    trainings.append(process)
    assert process.stderr
    while line := process.stderr.readline():
        if line.startswith("Waiting up to"):
            return process
    raise AssertionError("the training did not wait")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_group", [True, False], ids=["process group", "training process only"])
def test_interrupt_ends_the_wait_and_the_delivery_continues(
    end: str, is_group: bool, tmp_path: Path, probe: Probe, trainings: list[subprocess.Popen[str]]
) -> None:
    script, is_script_interrupted = ENDS[end]
    process = wait_for_end(script, tmp_path, probe, trainings)
    (os.killpg if is_group else os.kill)(process.pid, signal.SIGINT)
    _, error_output = process.communicate(timeout=60)  # instead of the 600 seconds of the wait
    # With tabulate installed, torch imports it at exit, and CPython forgets the interrupt: the status is 1.
    assert process.returncode in ((-signal.SIGINT, 1) if is_script_interrupted else (0,))
    assert ("KeyboardInterrupt" in error_output) is is_script_interrupted
    lines = [line for line in error_output.splitlines() if "Not yet delivered" in line]
    directories = sorted(path.parent for path in tmp_path.glob("*/run.json"))
    assert [line.rpartition(" ")[2] for line in sorted(lines, key=lambda line: line.rpartition("/")[2])] == [
        str(directory) for directory in directories
    ]
    assert all("The wait was interrupted. Delivery continues in the background." in line for line in lines)
    assert all(lock.is_held(directory / DELIVERY_LOCK) for directory in directories)
    probe.control()
    for directory in directories:
        assert sync(directory, timeout=60) == []
    assert {status for status in probe.statuses if status} == statuses_after(end)


@pytest.mark.parametrize("end", ENDS)
def test_repeated_interrupts_do_no_harm(
    end: str, tmp_path: Path, probe: Probe, trainings: list[subprocess.Popen[str]]
) -> None:
    process = wait_for_end(ENDS[end][0], tmp_path, probe, trainings)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    process.communicate(timeout=60)
    probe.control()
    for path in tmp_path.glob("*/run.json"):
        assert sync(path.parent, timeout=60) == []
    assert {status for status in probe.statuses if status} == statuses_after(end)


def test_wait_of_a_later_run_is_not_skipped_after_an_interrupt(
    tmp_path: Path, probe: Probe, trainings: list[subprocess.Popen[str]]
) -> None:
    script = """
    run = start("run")
    try:
        run.close()
    except KeyboardInterrupt:
        start("second").close()
    """
    process = wait_for_end(script, tmp_path, probe, trainings)
    process.send_signal(signal.SIGINT)
    wait_until((tmp_path / "second" / DELIVERY_LOCK).exists)
    probe.control()
    _, error_output = process.communicate(timeout=60)
    assert error_output.count("Not yet delivered") == 1
    assert process.returncode == 0
