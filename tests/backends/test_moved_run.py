"""Run directories that are moved after the delivery to backends that store paths of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pte_tracking._store import events
from pte_tracking.sinks import get_sink
from pte_tracking.testing import RecordedRun
from tests.backends.clearml_sessions import read_task
from tests.backends.swanlab_files import read_records as read_swanlab
from tests.backends.test_wandb import read_records as read_wandb
from tests.cli.invocation import invoke


def list_clearml(directory: Path) -> list[str]:
    return [artifact.uri for artifact in read_task(directory).execution.artifacts if artifact.key == "file.txt"]


def list_swanlab(directory: Path) -> list[str]:
    return [record.save.source_path for record in read_swanlab(directory) if record.save.source_path]


def list_wandb(directory: Path) -> list[str]:
    return [file.local_path for record in read_wandb(directory) for file in record.artifact.manifest.contents]


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # raised by clearml with pyparsing 3.3
@pytest.mark.parametrize(
    ("name", "list_paths"), [("clearml", list_clearml), ("swanlab", list_swanlab), ("wandb", list_wandb)]
)
def test_sync_of_moved_run_stores_new_paths(name: str, list_paths: Callable[[Path], list[str]], tmp_path: Path) -> None:
    run, moved = RecordedRun(tmp_path / "run", get_sink(name)()), tmp_path / "moved run"
    (run.directory / "file.txt").write_text("content")
    run.journal.append(events.Artifact, "file.txt", "")
    run.journal.append(events.Checkpoint, "file.txt", 1, "0" * 64, 7, 1, {})
    run.end()
    run.directory.rename(moved)
    result = invoke("sync", moved)
    assert result.exit_code == 0, result.output
    (path,) = list_paths(moved)
    assert path.startswith(str(moved))
    assert Path(path).read_text() == "content"
