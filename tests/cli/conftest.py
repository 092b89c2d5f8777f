"""Fixtures for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking import extensions


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with pte.Run(tmp_path / "result", params={"lr": 0.1}) as run:
        for step in range(1, 21):
            run.log_metrics({"loss": 1 / step, "odd": float("nan")}, step, epoch=step / 10)
    return tmp_path / "result"


@pytest.fixture
def run_with_table(tmp_path: Path) -> Path:
    """Run with a row per 2 iterations, and a table with a row per epoch, whose log no sink receives."""
    own = [
        extensions.LogReport(trigger=(2, "iteration")),
        extensions.PrintReport(["loss"], log_report=extensions.LogReport(sinks=[])),
    ]
    manager = pte.ExtensionsManager({}, 2, own, out_dir=tmp_path / "table", sinks=["json"])
    for value in manager.iterations([1.0, 2.0, 3.0, 4.0]):
        pte.report({"loss": value})
    return tmp_path / "table"
