"""Lock files that a backup with hard links shares with the run directory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._store import lock
from pte_tracking._store.lock import Lock
from pte_tracking._store.status import read_status

HOLD = """
import sys
from pathlib import Path
from pte_tracking._store.lock import Lock
held = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def link_tree(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, copy_function=os.link)
    return target


def test_backup_with_hard_links_resumes_while_the_run_trains(tmp_path: Path) -> None:
    with pte.Run(tmp_path / "run", sinks=["json"]) as run:
        run.log_metrics({"loss": 1.0}, 1)
        backup = link_tree(tmp_path / "run", tmp_path / "backup")
        assert read_status(tmp_path / "run") == "RUNNING"
        assert read_status(backup) == "KILLED"
        with pte.Run(backup, sinks=["json"], resume=True) as continued:
            continued.log_metrics({"loss": 2.0}, 2)
            assert read_status(backup) == read_status(tmp_path / "run") == "RUNNING"
        run.log_metrics({"loss": 3.0}, 2)
        with pytest.raises(pte.DirectoryInUseError):
            pte.Run(tmp_path / "run", resume=True).open()
    assert [row.values["loss"] for row in pte.Run(tmp_path / "run").rows()] == [1.0, 3.0]
    assert [row.values["loss"] for row in pte.Run(backup).rows()] == [1.0, 2.0]


def test_resumed_run_leaves_every_file_of_a_backup_with_hard_links_unchanged(tmp_path: Path) -> None:
    with pte.Run(tmp_path / "run", sinks=["json", "tensorboard"]) as run:
        run.log_metrics({"loss": 1.0}, 1)
    backup = link_tree(tmp_path / "run", tmp_path / "backup")
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    with pte.Run(tmp_path / "run", sinks=["json", "tensorboard"], resume=True) as run:
        run.log_metrics({"loss": 2.0}, 2)
    assert {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()} == before
    with pte.Run(backup, resume=True) as run:
        run.log_metrics({"loss": 3.0}, 2)
    assert [row.values["loss"] for row in pte.Run(tmp_path / "run").rows()] == [1.0, 2.0]


@pytest.mark.parametrize("linked", ["before", "after"])
def test_lock_of_another_process_keeps_its_directory_locked_and_the_backup_free(tmp_path: Path, linked: str) -> None:
    (tmp_path / "run").mkdir()
    path, copy = tmp_path / "run/.lock", tmp_path / "copy.lock"
    (tmp_path / "backup").mkdir()
    if linked == "before":
        Lock(path).release()
        os.link(path, tmp_path / "backup/.lock")
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        if linked == "after":
            os.link(path, tmp_path / "backup/.lock")
        os.link(path, copy)
        for _ in range(2):
            with pytest.raises(lock.LockedError, match=f"process {process.pid} "):
                Lock(path)
            free = Lock(tmp_path / "backup/.lock")
            assert lock.is_held(path)
            free.release()
        process.communicate()
    Lock(path).release()
