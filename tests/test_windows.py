"""Trainings and deliveries with the restrictions of Windows, simulated on Linux; see ``windows/sitecustomize.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "windows"
ROOT = FOLDER.parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="The restrictions are simulated with functions of Linux."),
]


def windows_environment() -> dict[str, str]:
    path = os.pathsep.join([str(FOLDER), str(ROOT), str(ROOT / "backends")])
    return {**os.environ, "PTE_TEST_WINDOWS": "1", "PYTHONPATH": path}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=windows_environment(), capture_output=True, text=True, timeout=250, check=False)


def train(directory: Path, mode: str) -> str:
    result = run(FOLDER / "training.py", directory, mode)
    assert result.returncode == 0, result.stderr
    return result.stderr


def steps(directory: Path) -> list[int]:
    return [row["iteration"] for row in json.loads((directory / "log").read_text())]


def status(directory: Path) -> str:
    """Return the status that a process on Windows reads."""
    code = "import pathlib, sys; from pte_tracking._store.status import read_status; "
    return run("-c", f"{code}print(read_status(pathlib.Path(sys.argv[1])))", directory).stdout.strip()


def pending(directory: Path) -> int:
    return run("-m", "pte_tracking._cli", "sync", directory).returncode


def test_restrictions_of_windows_are_in_effect() -> None:
    code = "import os, sys, signal; print(hasattr(os, 'pwrite'), hasattr(signal, 'SIGKILL')); os.open('.', os.O_RDONLY)"
    result = run("-c", code)
    assert result.stdout == "False False\n"
    assert "PermissionError" in result.stderr


def test_second_training_on_windows_archives_the_first(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for _ in range(2):
        output = train(directory, "fresh")
        assert "Bad file descriptor" not in output
        assert "cannot access" not in output
        assert steps(directory) == list(range(1, 11))
        assert status(directory) == "FINISHED"
        assert pending(directory) == 0
        assert list(directory.glob("events.out.tfevents.*"))
        messages = directory / "delivery/log.txt"  # does not exist if an earlier delivery process delivered the run
        assert not messages.exists() or "ERROR" not in messages.read_text()
    (earlier,) = (directory / "previous").iterdir()
    assert steps(earlier) == list(range(1, 11))
    assert pending(earlier) == 0


def test_killed_training_on_windows_resumes_and_rewinds_log(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    command = [sys.executable, str(FOLDER / "training.py"), str(directory), "hold"]
    with subprocess.Popen(
        command, env=windows_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        refused = run("-c", f"import pte_tracking; pte_tracking.Run({str(directory)!r}, resume=True).open()")
        assert "DirectoryInUseError" in refused.stderr
        assert status(directory) == "RUNNING"
        process.kill()
    assert status(directory) == "KILLED"
    assert steps(directory)[-1] == 7
    train(directory, "resume")
    assert steps(directory) == list(range(1, 11))
    assert pending(directory) == 0
