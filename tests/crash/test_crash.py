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
def test_killed_at_random_places_and_resumed_a_run_is_bit_for_bit_the_one_that_nobody_killed() -> None:
    # A process of its own: it forks, and its sessions import what they like.
    trials = Path(__file__).with_name("trials.py")
    done = subprocess.run(
        [sys.executable, str(trials), "--kills", str(KILLS), "--seed", "7"], capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) kills .* 0 runs differ", done.stdout, re.MULTILINE)
    assert found, done.stdout
    assert int(found[1]) >= KILLS
