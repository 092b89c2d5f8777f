"""Run directories that are moved, replaced or deleted while their run is open."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.events import Metrics, RunEnded
from pte_tracking._store.journal_reader import read
from pte_tracking._store.place import Place


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "result"


def replace(directory: Path) -> Path:
    """Move a directory, put another finished run in its place, and return the moved directory."""
    kept = directory.with_name("kept")
    directory.rename(kept)
    other = directory.with_name("other")
    with pte.Run(other, sinks=["json"]) as run:
        run.log_metrics({"a": 9.0}, 1)
    other.rename(directory)
    return kept


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.sync(),
        lambda run: run.position(2),
        lambda run: run.register_files("new*"),
        lambda run: run.log_metrics({"a": 1.0}, 2, log="other"),
        lambda run: run.log_image("i", torch.zeros(3, 2, 2), 1),
        lambda run: run.log_checkpoint(run.directory / "snapshot", 2, "0" * 64, 1),
    ],
)
def test_call_that_writes_by_path_leaves_the_other_run_intact(directory: Path, call, caplog) -> None:  # type: ignore[no-untyped-def]
    run = pte.Run(directory, sinks=["json"])
    run.log_metrics({"a": 1.0}, 1)
    kept = replace(directory)
    before = tree(directory)
    with contextlib.suppress(RuntimeError):  # of calls that a snapshot makes
        call(run)
    run.log_metrics({"a": 1.0}, 3)
    run.close()
    assert tree(directory) == before
    assert caplog.text.count("was moved, replaced or deleted") == 1
    with pte.Run(kept, sinks=["json"], resume=True) as resumed:
        resumed.log_metrics({"a": 1.0}, 4)
    assert [row["iteration"] for row in json.loads((kept / "log").read_text())][-2:] == [3, 4]
    assert isinstance([event for event, _ in read(kept / "journal.jsonl")][-1], RunEnded)


def test_rows_after_the_move_are_written_to_the_moved_directory(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = pte.Run(directory, sinks=["json"])
    run.log_metrics({"a": 1.0}, 1)
    kept = replace(directory)
    before = tree(directory)
    run.log_metrics({"a": 2.0}, 2)
    run.close()
    assert tree(directory) == before
    rows = [event.step for event, _ in read(kept / "journal.jsonl") if isinstance(event, Metrics)]
    assert rows == [row["iteration"] for row in json.loads((kept / "log").read_text())] == [1, 2]
    assert "Events are written to the journal in the moved directory" in caplog.text
    with pte.Run(kept, sinks=["json"], resume=True) as resumed:
        resumed.log_metrics({"a": 3.0}, 3)
    assert [row["iteration"] for row in json.loads((kept / "log").read_text())] == [1, 2, 3]


@pytest.mark.parametrize("is_deleted", [True, False])
def test_snapshot_is_not_written_to_another_directory(
    directory: Path, is_deleted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = torch.nn.Linear(1, 1)
    used = [
        extensions.LogReport(trigger=(1, "iteration")),
        extensions.snapshot(trigger=(2, "iteration"), asynchronous=False),
    ]
    manager = pte.ExtensionsManager(model, 4, used, iters_per_epoch=1, out_dir=directory, sinks=["json"])
    while not manager.stop_trigger:
        with manager.run_iteration():
            pte.report({"loss": 1.0})
        if manager.iteration == 3:
            if is_deleted:
                shutil.rmtree(directory)
            else:
                replace(directory)
    manager.close()
    assert not list(directory.glob("*snapshot*"))
    assert directory.exists() != is_deleted
    assert "snapshot_iter_4: the snapshot was not saved: RuntimeError: " in caplog.text


def test_place_is_current_while_the_path_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)

    def fail(path: Path) -> None:
        raise OSError("stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("os.stat", fail)
        assert place.is_current()
    assert place.is_current()
