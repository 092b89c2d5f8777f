"""Runs of other users, which sync refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.ownership import check_owner
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import JOURNAL
from tests.cli.invocation import invoke
from tests.probe.fixtures import wait_until

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="Only root can give a file to another user."
)


@needs_root
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


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("trust", [True, False])
def test_follow_delivers_runs_of_other_users_only_if_trusted(
    trust: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    for name in ("theirs", "own"):
        with pte.Run(tmp_path / name, sinks=["tensorboard"]) as run:
            run.log_metrics({"loss": 1.0}, 1)
    os.chown(tmp_path / "theirs", 12345, -1)
    before = sorted(path.name for path in (tmp_path / "theirs").rglob("*"))

    def is_delivered(name: str) -> bool:
        return backlog(tmp_path / name, Manifest.load(tmp_path / name)) == []

    command = [sys.executable, "-m", "pte_tracking._cli", "sync", "--follow", str(tmp_path), *["--trust"] * trust]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        try:
            wait_until(lambda: is_delivered("own"))
            if trust:
                wait_until(lambda: is_delivered("theirs"))
            follower.send_signal(signal.SIGINT)
            output, error_output = follower.communicate(timeout=30)
        finally:
            follower.kill()
    assert follower.returncode == 0
    assert error_output.count("owned by user ID 12345, not by you.") == (0 if trust else 1)
    assert (f"{tmp_path / 'theirs'}: delivering" in output) is trust
    assert is_delivered("theirs") is trust
    assert trust or sorted(path.name for path in (tmp_path / "theirs").rglob("*")) == before
