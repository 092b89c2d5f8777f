"""A killed training that is resumed is equal to an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.snapshots import preempted
from tests.snapshots import small_training as small


@pytest.mark.slow
@pytest.mark.parametrize("front_end", small.FRONT_ENDS)
def test_killed_training_resumed_equals_uninterrupted_training(front_end: str, tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "tests.snapshots.kills", front_end, tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert completed.returncode == 0, completed.stderr[-5000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_preempted_process_group_saves_snapshot_and_resumes(name: str, tmp_path: Path) -> None:
    """Schedulers signal the whole process group, including the workers of the loader."""
    number = signal.Signals[name]
    training = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.snapshots.preempted", tmp_path / "stopped", name],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "stopped" / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(training.pid, number)
    (tmp_path / "stopped" / "signalled").touch()
    assert training.wait(60) == 128 + number

    options = {"extension_list": small.default_extensions(on_signal=number), "workers": 2}
    resumed_weights, resumed = small.train(tmp_path / "stopped", **options)
    assert resumed is not None
    assert resumed.step == preempted.ITERATION
    weights, _ = small.train(tmp_path / "whole", extension_list=small.default_extensions(on_signal=number), workers=2)
    assert resumed_weights == weights
    assert small.read_rows(tmp_path / "stopped") == small.read_rows(tmp_path / "whole")
