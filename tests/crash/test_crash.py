"""A training that is killed again and again leaves what one leaves that nobody kills."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 36


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_resumed_run_equals_uninterrupted_run() -> None:
    # A process of its own: it forks, and its sessions import what they like.
    trials = Path(__file__).with_name("trials.py")
    completed = subprocess.run(
        [sys.executable, str(trials), "--kills", str(KILLS), "--seed", "7"], capture_output=True, text=True, timeout=850
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    summary = re.search(r"^(\d+) kills .* 0 runs differ", completed.stdout, re.MULTILINE)
    assert summary, completed.stdout
    assert int(summary[1]) >= KILLS
