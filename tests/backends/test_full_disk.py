"""Disks that are full when the end of a run is written to a file in the run directory."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pte_backends.clearml import ClearMLSink
from pte_tracking._store import events
from pte_tracking.sinks import get_sink
from pte_tracking.testing import RecordedRun
from tests.backends.clearml_sessions import find_session
from tests.backends.event_files import limit_file_size
from tests.backends.swanlab_files import read_records as read_swanlab
from tests.backends.test_wandb import read_records as read_wandb


def has_swanlab_end(directory: Path) -> bool:
    return read_swanlab(directory)[-1].HasField("finish")


def has_wandb_end(directory: Path) -> bool:
    return read_wandb(directory)[-1].HasField("exit")


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # raised by clearml with pyparsing 3.3
def test_incomplete_archive_of_full_disk_is_replaced(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", ClearMLSink())
    for name in ("a.bin", "b.bin"):
        (run.directory / name).write_bytes(os.urandom(30_000))
        run.journal.append(events.Artifact, name, "")
    run.deliver()
    with limit_file_size(40_000), pytest.raises(OSError, match="The disk may be full"):
        run.end("KILLED")
    assert not list(run.directory.rglob("*.zip"))
    run.crash()
    run.end("KILLED")
    with zipfile.ZipFile(find_session(run.directory).with_suffix(".zip")) as archive:
        assert {Path(name).name for name in archive.namelist()} == {"a.bin", "b.bin", "task.json", "metrics.jsonl"}


@pytest.mark.parametrize(("name", "has_end"), [("swanlab", has_swanlab_end), ("wandb", has_wandb_end)])
def test_status_of_full_disk_is_written_by_retry(name: str, has_end: Callable[[Path], bool], tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", get_sink(name)())
    for step in range(100):  # The saved position is smaller than the file.
        run.log(step, {"loss": 0.5})
    run.deliver()
    (path,) = (path for path in run.directory.glob(f"{name}/*/*") if path.is_file())
    with limit_file_size(path.stat().st_size + 3), pytest.raises(OSError, match="the disk may be full"):
        run.end("KILLED")
    assert not has_end(run.directory)
    run.crash()
    run.end("KILLED")
    assert has_end(run.directory)
