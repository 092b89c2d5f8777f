"""Recovery after repeated SIGKILL of the training and delivery processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.killing import DELIVERY_KILL_POINTS, TRAINING_KILL_POINTS, find_function

KILLS = 36


@pytest.mark.parametrize("kill_point", [*TRAINING_KILL_POINTS, *DELIVERY_KILL_POINTS])
def test_function_of_kill_point_exists(kill_point: str) -> None:
    module, path, *_ = kill_point.split(":")
    assert find_function(module, path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_resumed_run_equals_uninterrupted_run() -> None:
    # The trials fork and import their own modules, so they run in a separate process.
    trials = Path(__file__).with_name("trials.py")
    completed = subprocess.run(
        [sys.executable, str(trials), "--kills", str(KILLS), "--seed", "7"], capture_output=True, text=True, timeout=850
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    summary = re.search(r"^(\d+) kills .* uninterrupted run: 0$", completed.stdout, re.MULTILINE)
    assert summary, completed.stdout
    assert int(summary[1]) >= KILLS
