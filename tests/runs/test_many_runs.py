"""Many runs made one after the other in one process, which leave nothing behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import pte_tracking as pte
from pte_tracking._delivery import shared_process
from pte_tracking._delivery.backlog import backlog
from pte_tracking._runs import live_runs
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store import lock
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.status import read_status
from tests.probe.fixtures import wait_until

pytestmark = pytest.mark.slow
RUNS = 150  # What one run leaves behind is counted exactly, so more runs would show nothing else.


def close_each(directory: Path, runs: int) -> None:
    for number in range(runs):
        with pte.Run(directory / str(number), sinks=["json", "tensorboard"]) as run:
            run.log_metrics({"loss": 1.0}, 1)


def rebind_variable(directory: Path, runs: int) -> None:
    for number in range(runs):
        run = pte.Run(directory / str(number), sinks=["json", "tensorboard"])
        run.log_metrics({"loss": 1.0}, 1)


def run_cell_again(directory: Path, runs: int) -> None:
    names: dict[str, object] = {"pte": pte, "directory": directory / "run"}
    cell = compile(
        "run = pte.Run(directory, sinks=['json', 'tensorboard'])\nrun.log_metrics({'loss': 1.0}, 1)", "", "exec"
    )
    for _ in range(runs):
        exec(cell, names)


def raise_in_each(directory: Path, runs: int) -> None:
    for number in range(runs):
        try:
            with pte.Run(directory / str(number), sinks=["json", "tensorboard"]) as run:
                run.log_metrics({"loss": 1.0}, 1)
                raise RuntimeError("a trial that fails")
        except RuntimeError:
            continue


def have_processes_ended() -> bool:
    shared_process.check_processes()
    return not shared_process._processes


@pytest.mark.parametrize(
    ("make_runs", "runs"),
    [(close_each, RUNS), (rebind_variable, RUNS), (raise_in_each, RUNS // 3), (run_cell_again, RUNS * 2 // 3)],
)
def test_runs_one_after_the_other_leave_nothing_behind(
    tmp_path: Path, make_runs: Callable[[Path, int], None], runs: int
) -> None:
    wait_until(have_processes_ended)
    make_runs(tmp_path, 2)  # imports modules
    wait_until(have_processes_ended)
    gc.collect()
    descriptors, threads = psutil.Process().num_fds(), threading.active_count()
    make_runs(tmp_path / "runs", runs)
    gc.collect()
    assert len(shared_process._processes) <= 1
    wait_until(have_processes_ended, 60.0)
    assert psutil.Process().num_fds() == descriptors
    assert threading.active_count() == threads
    assert not [path for path in lock._own_locks if tmp_path in path.parents]
    assert not [writer for writer in gc.get_objects() if type(writer) is RunWriter]
    directories = [path.parent for path in tmp_path.rglob("run.json")]
    assert len(directories) == runs + 2
    assert all(backlog(directory, Manifest.load(directory)) == [] for directory in directories)
    assert {read_status(directory) for directory in directories} <= {"FINISHED", "FAILED"}


def test_collected_runs_are_forgotten_when_they_are_delivered(tmp_path: Path) -> None:
    rebind_variable(tmp_path / "first", 50)
    wait_until(have_processes_ended)
    rebind_variable(tmp_path / "second", 40)
    assert len(live_runs._deliveries) <= 45


def test_current_directory_may_change_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with pte.Run("run", sinks=["tensorboard"]) as run:
            run.log_metrics({"loss": 1.0}, 1)
        assert run.directory == Path(os.path.realpath(tmp_path / name / "run"))
        assert backlog(run.directory, Manifest.load(run.directory)) == []
