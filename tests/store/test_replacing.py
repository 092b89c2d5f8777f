"""Replacement of sharded snapshots, which a crash may interrupt at any moment."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pte_tracking._store import replacing
from pte_tracking._store.checkpoint_files import digest_file, verify_snapshot, write_index
from pte_tracking._store.replacing import replace_snapshot, restore_replaced

REPLACE = """
import pathlib, sys
from pte_tracking._store import replacing
from tests.store.test_replacing import write

if sys.argv[2] == "renames":
    replacing.exchange_names = lambda first, second: False
directory = pathlib.Path(sys.argv[1])
print(flush=True)
number = 1
while True:
    write(directory / ".new", number)
    replacing.replace_snapshot(directory / ".new", directory / "newest")
    number += 1
"""


def write(path: Path, number: int) -> None:
    """Write a directory with the files and the index of a sharded snapshot."""
    path.mkdir()
    files = [path / f"__{index}_0.distcp" for index in range(40)]
    for file in files:
        file.write_text(str(number))
    write_index(path, {file.name: digest_file(file) for file in files})


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_replaced_snapshot_is_intact_after_kill_at_any_moment(way: str, tmp_path: Path) -> None:
    for trial in range(12):
        directory = tmp_path / str(trial)
        directory.mkdir()
        write(directory / "newest", 0)
        process = subprocess.Popen([sys.executable, "-c", REPLACE, str(directory), way], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.013 * trial)
        process.kill()
        process.wait()
        process.stdout.close()
        if way == "exchange":
            assert verify_snapshot(directory / "newest") is None
        restore_replaced(directory / "newest")
        assert verify_snapshot(directory / "newest") is None
        assert not list(directory.glob(".*.replaced"))


def test_replace_snapshot_exchanges_file_and_directory(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("file")
    write(tmp_path / "newest", 0)
    replace_snapshot(tmp_path / "new", tmp_path / "newest")
    assert (tmp_path / "newest").read_text() == "file"
    write(tmp_path / "new", 1)
    replace_snapshot(tmp_path / "new", tmp_path / "newest")
    assert verify_snapshot(tmp_path / "newest") is None
    assert [path.name for path in tmp_path.iterdir()] == ["newest"]


def test_restore_replaced_keeps_the_newer_snapshot(tmp_path: Path) -> None:
    (tmp_path / "newest").write_text("new")
    write(replacing._replaced_path(tmp_path / "newest"), 0)
    restore_replaced(tmp_path / "newest")
    assert [path.name for path in tmp_path.iterdir()] == ["newest"]
    assert (tmp_path / "newest").read_text() == "new"
