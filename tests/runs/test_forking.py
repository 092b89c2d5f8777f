"""Runs that start with the history of another run."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.run import Run
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.status import read_status
from tests.pictures import PNG


def tree(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def recorded(directory: Path, kind: Any) -> list[Any]:
    return [event for event, _ in read(directory / "journal.jsonl") if isinstance(event, kind)]


def make_parent(directory: Path) -> RunPosition:
    """Make a run of 3 steps with a rewind, and return its position after step 2."""
    with Run(directory, params={"lr": 0.1, "depth": 3}, tags={"team": "a"}, name="parent") as run:
        run.log_metrics({"loss": 1.0}, 1, epoch=0.5)
        first = run.position(1)
        run.log_metrics({"loss": 99.0}, 2)
    run = Run(directory)
    run.open(first)
    run.rewind()
    run.log_metrics({"loss": 2.0}, 2, log="other")
    run.log_figure("figure", PNG, 2)
    (directory / "own.txt").write_text("own")
    (directory / "folder").mkdir()
    (directory / "folder" / "link").symlink_to("/etc/passwd")
    (directory / "folder" / "file").write_text("content")
    run.log_artifact(directory / "own.txt")
    run.log_artifact(directory / "folder")
    run.log_checkpoint("snapshot", 2, "00", 1)
    position = run.position(2)
    run.log_metrics({"loss": 3.0}, 3)
    run.close()
    return position


def fork(directory: Path, position: RunPosition, **options: Any) -> Run:
    run = Run(directory, **options)
    run.open(position, is_fork=True)
    return run


def test_fork_starts_with_history_and_leaves_the_parent_unchanged(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "parent")
    before = tree(tmp_path / "parent")
    run = fork(tmp_path / "fork", position, params={"lr": 0.2})
    run.rewind()
    run.log_metrics({"loss": 4.0}, 3)
    run.close()
    assert tree(tmp_path / "parent") == before
    assert [(row.step, row.values["loss"], row.log) for row in recorded(tmp_path / "fork", events.Metrics)] == [
        *[(1, 1.0, "log"), (2, 2.0, "other"), (3, 4.0, "log")]
    ]
    parents_rows = recorded(tmp_path / "parent", events.Metrics)
    assert recorded(tmp_path / "fork", events.Metrics)[0].time == parents_rows[0].time
    log = json.loads((tmp_path / "fork" / "log").read_text())
    assert [(row["iteration"], row["loss"]) for row in log] == [(1, 1.0), (3, 4.0)]
    assert run.id != position["id"]
    assert run.checkpoints() == []
    assert read_status(tmp_path / "fork") == "FINISHED"
    assert [event.resumed for event in recorded(tmp_path / "fork", events.RunStarted)] == [False]
    assert [event.seq for event, _ in read(tmp_path / "fork" / "journal.jsonl")] == list(range(1, 13))


def test_fork_records_its_parent(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "parent")
    fork(tmp_path / "fork", position).rewind()
    parent = Manifest.load(tmp_path / "fork").parent
    assert parent is not None
    assert (parent.id, parent.name, parent.step, parent.has_history) == (position["id"], "parent", 2, True)
    assert parent.directory == str(tmp_path / "parent")
    tags: dict[str, str] = {}
    for event in recorded(tmp_path / "fork", events.Tags):
        tags |= event.values
    assert tags == {"team": "a", "forked_from": position["id"], "forked_at_step": "2"}


def test_fork_has_its_own_parameters(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "parent")
    fork(tmp_path / "fork", position, params={"lr": 0.2}).rewind()
    assert [event.values for event in recorded(tmp_path / "fork", events.Params)] == [
        {"lr": 0.2, "depth": 3},
        {"lr": 0.2},
    ]


def test_fork_copies_files_without_following_links(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "parent")
    (tmp_path / "fork").mkdir()
    (tmp_path / "fork" / "own.txt").write_text("of another program")
    fork(tmp_path / "fork", position).rewind()
    (figure,) = recorded(tmp_path / "fork", events.Figure)
    assert (tmp_path / "fork" / figure.path).read_bytes() == PNG
    assert [event.path for event in recorded(tmp_path / "fork", events.Artifact)] == [
        "artifacts/own.txt",
        "artifacts/folder",
    ]
    assert (tmp_path / "fork" / "artifacts" / "own.txt").read_text() == "own"
    assert (tmp_path / "fork" / "own.txt").read_text() == "of another program"
    assert os.listdir(tmp_path / "fork" / "artifacts" / "folder") == ["file"]


def test_fork_with_linked_figure_reports_the_missing_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    position = make_parent(tmp_path / "parent")
    (path,) = (tmp_path / "parent" / "figures" / "figure").iterdir()
    path.unlink()
    path.symlink_to("/etc/passwd")
    fork(tmp_path / "fork", position).rewind()
    assert recorded(tmp_path / "fork", events.Figure) == []
    assert f"{path.relative_to(tmp_path / 'parent').as_posix()!r} of the parent run was not copied" in caplog.text


def test_fork_without_iteration_creates_no_run(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "parent")
    with Run(tmp_path / "fork") as earlier:
        earlier.log_metrics({"a": 1.0}, 1)
    before = tree(tmp_path / "fork")
    run = fork(tmp_path / "fork", position)
    assert run.position(2) == position
    run.close()
    after = tree(tmp_path / "fork")
    assert {name: after[name] for name in after if name != ".lock"} == {
        name: before[name] for name in before if name != ".lock"
    }


def test_fork_in_used_directory_archives_the_earlier_run(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "parent")
    for _ in range(2):
        fork(tmp_path / "fork", position).rewind()
    (archived,) = (tmp_path / "fork" / "previous").iterdir()
    assert not (tmp_path / "fork" / "other").samefile(archived / "other")
    assert [row.step for row in recorded(archived, events.Metrics)] == [1, 2]


def test_fork_of_an_archived_parent_has_its_history(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "run")
    run = fork(tmp_path / "run", {**position, "step": 2})
    run.close()
    with Run(tmp_path / "run"):
        pass
    run = fork(tmp_path / "run", position)
    run.rewind()
    assert [row.step for row in recorded(tmp_path / "run", events.Metrics)] == [1, 2]


def remove(parent: Path, position: RunPosition) -> RunPosition:
    shutil.rmtree(parent)
    return position


def replace_run(parent: Path, position: RunPosition) -> RunPosition:
    shutil.rmtree(parent)
    with Run(parent) as run:
        run.log_metrics({"loss": 5.0}, 1)
    return position


def link_directory(parent: Path, position: RunPosition) -> RunPosition:
    parent.rename(parent.with_name("moved"))
    parent.symlink_to(parent.with_name("moved"))
    return position


def link_journal(parent: Path, position: RunPosition) -> RunPosition:
    (parent / "journal.jsonl").rename(parent / "moved")
    (parent / "journal.jsonl").symlink_to("moved")
    return position


def make_pipe(parent: Path, position: RunPosition) -> RunPosition:
    (parent / "journal.jsonl").unlink()
    os.mkfifo(parent / "journal.jsonl")
    return position


def invent_position(parent: Path, position: RunPosition) -> RunPosition:
    return {**position, "position": position["position"] - 3}


def name_another_directory(parent: Path, position: RunPosition) -> RunPosition:
    return {**position, "directory": "parent\0"}


@pytest.mark.parametrize(
    "change",
    [remove, replace_run, link_directory, link_journal, make_pipe, invent_position, name_another_directory],
    ids=lambda change: change.__name__,
)
def test_fork_without_parent_warns_once_and_has_no_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any
) -> None:
    position = change(tmp_path / "parent", make_parent(tmp_path / "parent"))
    caplog.clear()
    run = fork(tmp_path / "fork", position)
    run.rewind()
    run.log_metrics({"loss": 4.0}, 3)
    run.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "starts a new run at step 2. The earlier rows are missing, because" in warnings[0]
    assert [row.step for row in recorded(tmp_path / "fork", events.Metrics)] == [3]


def test_fork_is_delivered_to_event_files_with_its_history(tmp_path: Path) -> None:
    position = make_parent(tmp_path / "parent")
    run = fork(tmp_path / "fork", position, sinks=["tensorboard"])
    run.rewind()
    run.log_metrics({"loss": 4.0}, 3)
    run.close()
    reader = EventAccumulator(str(tmp_path / "fork"))
    reader.Reload()
    assert [(point.step, point.value) for point in reader.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 4.0)]
    assert [image.step for image in reader.Images("figure")] == [2]
