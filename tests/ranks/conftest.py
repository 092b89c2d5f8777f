"""Fixtures of the rank tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.ranks import snapshot_scenarios
from tests.ranks.forked import on_ranks


@pytest.fixture(scope="session")
def two_rank_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a run of two ranks and sharded snapshots of steps 2, 4, 6 and 8."""
    folder = tmp_path_factory.mktemp("by-two")
    on_ranks(snapshot_scenarios.train_sharded, 2, folder)
    return folder


@pytest.fixture
def folder(two_rank_run: Path, tmp_path: Path) -> Path:
    """Private copy of the two-rank run for one test."""
    shutil.copytree(two_rank_run / "run", tmp_path / "run")
    return tmp_path
