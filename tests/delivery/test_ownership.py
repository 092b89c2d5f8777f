"""Runs of other users, which sync refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._delivery.ownership import check_owner
from pte_tracking.sinks import JOURNAL
from tests.cli.invocation import invoke


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can give a file to another user.")
@pytest.mark.parametrize("name", [".", "run.json", JOURNAL])
def test_sync_run_of_other_user_is_refused_unless_trusted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    with pte.Run(tmp_path / "run", sinks=["tensorboard"]) as run:
        run.log_metrics({"loss": 1.0}, 1)
    check_owner(tmp_path / "run")
    os.chown(tmp_path / "run" / name, 12345, -1)
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    result = invoke("sync", tmp_path / "run")
    assert result.exit_code == 1
    assert "owned by user ID 12345, not by you." in result.output
    assert "pass --trust" in result.output
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before
    assert invoke("sync", tmp_path / "run", "--trust").exit_code == 0
