"""Runs on a file system without locks, which tests cannot mount: the system calls for locks fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pte_tracking as pte

NO_LOCKS = """
import errno, fcntl, os

real = fcntl.fcntl
commands = {value for name, value in vars(fcntl).items() if name.endswith(("GETLK", "SETLK", "SETLKW"))}

def fail(*arguments):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

fcntl.lockf = fail
fcntl.fcntl = lambda fd, command, *rest: fail() if command in commands else real(fd, command, *rest)
"""
TRAIN = """
import pte_tracking as pte
with pte.Run("result", sinks=["json"]) as run:
    run.log_metrics({"loss": 1.0}, 1)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_LOCKS)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])}


def run(tmp_path: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_training_without_locks_stops_and_names_directory(tmp_path: Path, environment: dict[str, str]) -> None:
    result = run(tmp_path, environment, "-c", TRAIN)
    assert result.returncode == 1
    last_line = result.stderr.splitlines()[-1]
    assert f"{tmp_path / 'result'}: this file system does not support file locks" in last_line
    assert "Choose a directory on another file system" in last_line


def test_finished_run_without_locks_can_be_read(tmp_path: Path, environment: dict[str, str]) -> None:
    with pte.Run(tmp_path / "runs" / "one", sinks=["json"]) as recorded:
        recorded.log_metrics({"loss": 1.0}, 1)
    for command in (["list", "runs"], ["show", "runs/one"], ["verify", "runs/one"]):
        result = run(tmp_path, environment, "-m", "pte_tracking._cli", *command, "--json")
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
        if command[0] != "verify":
            assert (found[0] if isinstance(found, list) else found)["status"] == "FINISHED"
