"""Training that is killed, and delivered and resumed afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import os, signal, sys
import pte_tracking as pte
sink, first, last, is_killed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4
run = pte.Run("result", sinks=[sink], resume=True, close_timeout=60)
for step in range(first, last + 1):
    run.log_metrics({"loss": step / 8}, step)
if is_killed:
    os.kill(os.getpid(), signal.SIGKILL)
run.close()
"""


def train(folder: Path, sink: str, first: int, last: int) -> None:
    """Continue the run in ``folder/result`` from step ``first`` to ``last``, and deliver it completely."""
    subprocess.run([sys.executable, "-c", _SCRIPT, sink, str(first), str(last)], cwd=folder, check=True, timeout=120)


def train_and_kill(folder: Path, sink: str, first: int, last: int) -> None:
    """Continue the run in ``folder/result``, and kill the training after step ``last``."""
    command = [sys.executable, "-c", _SCRIPT, sink, str(first), str(last), "kill"]
    assert subprocess.run(command, cwd=folder, check=False, timeout=120).returncode < 0
