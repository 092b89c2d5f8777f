"""Managers that nobody closes: the status of their runs, and what they leave behind."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.events import RunEnded
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.status import read_status

SCRIPT = """
import os, signal, sys
from torch import nn
import pte_tracking as pte
from pte_tracking import extensions

def main():
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 10, [extensions.LogReport()], iters_per_epoch=3, out_dir="run")
    for _ in manager.batches(range(3)):
        with manager.run_iteration():
            pte.report({"loss": 1.0})
        if manager.iteration == 7:
            END

sys.exit(main())
"""


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        ("sys.exit(1)", "FAILED", "SystemExit: 1; ended at iteration 7 of 30"),
        ("return 3", "FAILED", "SystemExit: 3; ended at iteration 7 of 30"),
        ("raise ValueError('no data')", "FAILED", "ValueError: no data; ended at iteration 7 of 30"),
        ("raise KeyboardInterrupt", "KILLED", "KeyboardInterrupt; ended at iteration 7 of 30"),
        ("sys.exit(0)", "FINISHED", None),
        ("break", "FINISHED", None),
    ],
)
def test_loop_that_is_left_by_the_script_sets_status(tmp_path: Path, end: str, status: str, error: str | None) -> None:
    command = [sys.executable, "-c", SCRIPT.replace("END", end)]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    event, _ = last_event(tmp_path / "run" / "journal.jsonl")
    assert isinstance(event, RunEnded)
    assert (event.status, event.error) == (status, error)
    rows = json.loads((tmp_path / "run" / "log").read_text())
    assert [row["iteration"] for row in rows] == [3, 6, 7]


def test_collected_manager_writes_its_last_row_and_ends(tmp_path: Path) -> None:
    def train() -> None:
        manager = pte.ExtensionsManager(
            nn.Linear(1, 1), 10, [extensions.LogReport()], iters_per_epoch=3, out_dir=tmp_path
        )
        for _ in manager.batches(range(3)):
            with manager.run_iteration():
                pte.report({"loss": 1.0})
            if manager.iteration == 4:
                break

    train()
    gc.collect()
    assert read_status(tmp_path) == "FINISHED"
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == [3, 4]
