"""Fixtures for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import pte_tracking as pte


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with pte.Run(tmp_path / "result", params={"lr": 0.1}) as run:
        for step in range(1, 21):
            run.log_metrics({"loss": 1 / step, "odd": float("nan")}, step, epoch=step / 10)
    return tmp_path / "result"
