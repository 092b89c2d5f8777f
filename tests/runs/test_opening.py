"""When a run claims its directory, what is logged before, and what is logged after its end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pte_tracking._runs.directory_lock import DirectoryInUseError
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.run import Run
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read
from pte_tracking._store.status import read_status
from tests.pictures import PNG
from tests.users import unprivileged_user


def recorded(directory: Path) -> list[str]:
    return [type(event).__name__ for event, _ in read(directory / "journal.jsonl")]


def tree(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def make_run(directory: Path, steps: int = 3, **end: Any) -> RunPosition:
    """Make an ended run and return its position after the first step."""
    run = Run(directory)
    positions = []
    for step in range(1, steps + 1):
        run.log_metrics({"a": step}, step)
        positions.append(run.position(step))
    run.close(**end)
    return positions[0]


# -- reading -----------------------------------------------------------------------------------------------------------


def test_reading_id_of_unopened_run_creates_nothing_and_returns_id_of_new_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", name="mine")
    run_id, start_time = run.id, run.start_time
    assert (run.rows(), run.checkpoints(), run.name) == ([], [], "mine")
    assert not (tmp_path / "run").exists()
    run.log_metrics({"a": 1.0}, 1)
    assert (run.id, run.start_time) == (run_id, start_time)
    run.close()
    assert run.id == json.loads((tmp_path / "run" / "run.json").read_text())["id"] == run_id


@pytest.mark.parametrize("resume", [True, False])
def test_id_read_before_first_value_is_that_of_the_run_that_is_logged(tmp_path: Path, resume: bool) -> None:
    make_run(tmp_path)
    before = tree(tmp_path)
    run = Run(tmp_path, resume=resume)
    run_id = run.id
    assert tree(tmp_path) == before
    run.log_metrics({"a": 1.0}, 4)
    assert run.id == run_id
    assert (tmp_path / "previous").exists() is not resume
    run.close()


def test_id_of_held_run_that_is_archived_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_run(tmp_path)
    run = Run(tmp_path)
    run.hold()
    earlier = run.id
    run.open()
    assert run.id != earlier
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"the run ID {earlier} was read before, but the run is {run.id}" in message
    run.close()


# -- held --------------------------------------------------------------------------------------------------------------


def log_everything(run: Run, artifact: Path) -> None:
    run.log_metrics({"a": 9.0}, 9)
    run.log_figure("figure", PNG, 9)
    run.log_text("text", "held", 9)
    run.log_histogram("histogram", [1.0, 2.0], 9)
    run.log_artifact(artifact)
    run.log_params({"b": 1})


def test_held_events_belong_to_the_run_that_open_finds(tmp_path: Path) -> None:
    position = make_run(tmp_path / "run")
    before = tree(tmp_path / "run")
    artifact = tmp_path / "artifact"
    artifact.write_text("content")
    run = Run(tmp_path / "run")
    run.hold()
    log_everything(run, artifact)
    artifact.unlink()
    assert tree(tmp_path / "run") == before
    run.open(at=position)
    run.rewind()
    run.close()
    assert [row.step for row in run.rows()] == [1, 9]
    assert (tmp_path / "run" / "artifacts" / "artifact").read_text() == "content"
    start = recorded(tmp_path / "run").index("Rewound")
    assert recorded(tmp_path / "run")[start:] == [
        *("Rewound", "RunStarted", "Metrics", "Figure", "Text", "Histogram", "Artifact", "Params", "RunEnded")
    ]
    log = json.loads((tmp_path / "run" / "log").read_text())
    assert [row["iteration"] for row in log] == [1, 9]


def test_held_event_keeps_the_time_of_its_call(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.hold()
    run.log_metrics({"a": 1.0}, 1)
    run.open()
    run.close()
    times = {type(event): event.time for event, _ in read(tmp_path / "journal.jsonl")}
    assert times[events.Metrics] < times[events.RunStarted]


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log_metrics({"a": "text"}, 1),
        lambda run: run.log_image("image", "no image", 1),
        lambda run: run.log_artifact(run.directory / "missing"),
    ],
)
def test_held_invalid_value_raises_at_the_call(tmp_path: Path, call: Callable[[Run], None]) -> None:
    run = Run(tmp_path / "run")
    run.hold()
    with pytest.raises((TypeError, ValueError, OSError)):
        call(run)
    run.close()
    assert not (tmp_path / "run").exists()


def test_close_of_held_run_writes_only_if_something_was_logged(tmp_path: Path) -> None:
    for name in ("silent", "logged"):
        run = Run(tmp_path / name, params={"lr": 1})
        run.hold()
        if name == "logged":
            run.log_metrics({"a": 1.0}, 1)
        else:
            run.register_files("other")
        run.close()
    assert not (tmp_path / "silent").exists()
    assert recorded(tmp_path / "logged") == ["RunStarted", "Params", "Metrics", "RunEnded"]


def test_held_run_that_is_never_opened_is_written_at_exit(tmp_path: Path) -> None:
    script = "import pte_tracking as pte; run = pte.Run('run'); run.hold(); run.log_metrics({'a': 1.0}, 1)"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert recorded(tmp_path / "run") == ["RunStarted", "Metrics", "RunEnded"]


# -- opened at a position ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_open_and_close_without_iteration_changes_no_file(tmp_path: Path, status: Any) -> None:
    position = make_run(tmp_path, status=status)
    before = tree(tmp_path)
    run = Run(tmp_path, sinks=["json", "tensorboard"], params={"lr": 1})
    run.open(at=position)
    assert [row.step for row in run.rows()] == [1, 2, 3]
    assert run.position(1) == position
    with pytest.raises(DirectoryInUseError):
        Run(tmp_path).open()
    run.close()
    assert tree(tmp_path) == before


def test_open_at_other_run_archives_only_at_the_first_iteration(tmp_path: Path) -> None:
    position = make_run(tmp_path / "one")
    make_run(tmp_path / "two")
    before = tree(tmp_path / "two")
    run = Run(tmp_path / "two")
    run.open(at=position, journal=tmp_path / "one" / "journal.jsonl")
    assert run.id == position["id"]
    run.close()
    assert tree(tmp_path / "two") == before
    run = Run(tmp_path / "two")
    run.open(at=position, journal=tmp_path / "one" / "journal.jsonl")
    run.rewind()
    run.close()
    assert [row.step for row in run.rows()] == [1]
    assert (tmp_path / "two" / "previous").exists()


@pytest.mark.parametrize(("given", "kept"), [("FAILED", "FAILED"), ("FINISHED", "FINISHED"), (None, "KILLED")])
def test_log_without_iteration_is_appended_and_keeps_the_status(tmp_path: Path, given: Any, kept: str) -> None:
    position = make_run(tmp_path, status=given or "FINISHED", error="reason")
    if given is None:
        lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    run = Run(tmp_path)
    run.open(at=position)
    run.log_metrics({"test": 0.5}, 1)
    run.close("KILLED")
    assert "Rewound" not in recorded(tmp_path)
    assert [row.step for row in run.rows()] == [1, 2, 3, 1]
    assert read_status(tmp_path) == kept
    log = json.loads((tmp_path / "log").read_text())
    assert [row["iteration"] for row in log] == [1, 2, 3, 1]


def test_rewind_repeats_what_was_logged_since_open(tmp_path: Path) -> None:
    position = make_run(tmp_path, steps=4)
    run = Run(tmp_path, params={"lr": 2})
    run.open(at=position)
    run.log_metrics({"test": 0.5}, 1)
    run.rewind()
    run.rewind()
    run.log_metrics({"a": 20.0}, 2)
    run.close()
    assert [(row.step, *row.values) for row in run.rows()] == [(1, "a"), (1, "test"), (2, "a")]
    assert recorded(tmp_path).count("Rewound") == 1
    first, second = [
        event.time for event, _ in read(tmp_path / "journal.jsonl") if getattr(event, "values", 0) == {"test": 0.5}
    ]
    assert first == second
    log = json.loads((tmp_path / "log").read_text())
    assert [row["iteration"] for row in log] == [1, 1, 2]
    assert read_status(tmp_path) == "FINISHED"


def test_rewind_to_the_end_of_the_journal_appends_no_rewind(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log_metrics({"a": 1.0}, 1)
    position = run.position(1)
    run.close()
    with open(tmp_path / "journal.jsonl", "rb+") as file:
        file.truncate(position["position"])
    run = Run(tmp_path)
    run.open(at=position)
    run.log_metrics({"test": 1.0}, 1)
    run.rewind()
    run.close()
    assert "Rewound" not in recorded(tmp_path)
    assert [row.values for row in run.rows()] == [{"a": 1}, {"test": 1}]


# -- after the end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_log_after_close_opens_the_run_again_and_keeps_its_status(tmp_path: Path, status: Any) -> None:
    run = Run(tmp_path, params={"lr": 1})
    run.log_metrics({"a": 1.0}, 1)
    run.close(status, "reason")
    run_id = run.id
    run.log_metrics({"test": 1.0}, 1)
    assert run.is_open
    assert read_status(tmp_path) == "RUNNING"
    run.close("KILLED")
    assert (run.id, read_status(tmp_path)) == (run_id, status)
    assert recorded(tmp_path) == [
        *("RunStarted", "Params", "Metrics", "RunEnded"),
        *("RunStarted", "Metrics", "RunEnded"),
    ]
    assert [row.values for row in run.rows()] == [{"a": 1}, {"test": 1}]


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log_params({"lr": 1}),
        lambda run: run.set_tags({"team": "a"}),
        lambda run: run.log_figure("a", PNG, 1),
        lambda run: run.log_histogram("a", [1.0], 1),
        lambda run: run.log_text("a", "b"),
        lambda run: run.log_checkpoint("snapshot", 1, "00", 1),
        lambda run: run.log_metrics({"a": 1.0}, 1, log="other"),
        lambda run: run.sync(),
        lambda run: run.position(1),
    ],
)
def test_every_call_after_close_works(tmp_path: Path, call: Callable[[Run], object]) -> None:
    with Run(tmp_path) as run:
        pass
    call(run)
    run.close()
    assert recorded(tmp_path)[-1] == "RunEnded"


def test_log_after_close_ends_with_the_interpreter(tmp_path: Path) -> None:
    script = (
        "import pte_tracking as pte\nwith pte.Run('run') as run:\n    run.log_metrics({'a': 1.0}, 1)\n"
        "run.log_metrics({'test': 1.0}, 1)\n1 / 0"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=False).returncode == 1
    )
    assert recorded(tmp_path / "run") == ["RunStarted", "Metrics", "RunEnded"] * 2
    assert read_status(tmp_path / "run") == "FINISHED"


def test_with_statement_continues_an_ended_run(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
    with run:
        run.log_metrics({"a": 2.0}, 2)
    assert [row.step for row in run.rows()] == [1, 2]
    assert not (tmp_path / "previous").exists()


def test_log_after_close_into_directory_of_later_run_raises(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
    with Run(tmp_path, name="later"):
        pass
    before = tree(tmp_path)
    with pytest.raises(RuntimeError, match=r"has ended, and '.*' now contains another run. Create another Run"):
        run.log_metrics({"a": 2.0}, 2)
    assert tree(tmp_path) == before
    with Run(tmp_path):
        pass


def test_run_with_resume_ends_with_its_own_status(tmp_path: Path) -> None:
    make_run(tmp_path, status="FAILED", error="reason")
    with Run(tmp_path, resume=True) as run:
        run.log_metrics({"a": 4.0}, 4)
    assert read_status(tmp_path) == "FINISHED"
    before = tree(tmp_path)
    with Run(tmp_path, resume=True):
        pass
    assert tree(tmp_path) == before


def test_open_that_cannot_archive_releases_the_directory(tmp_path: Path) -> None:
    make_run(tmp_path)
    os.mkdir(tmp_path / "previous")
    os.rmdir(tmp_path / "previous")
    (tmp_path / "previous").write_text("in the way")
    run = Run(tmp_path)
    with pytest.raises(OSError, match="previous"):
        run.log_metrics({"a": 1.0}, 1)
    (tmp_path / "previous").unlink()
    run.log_metrics({"a": 1.0}, 1)
    run.close()


@pytest.mark.parametrize("exists", [False, True], ids=["missing", "present"])
def test_open_of_directory_that_cannot_be_written_names_it_and_what_to_do(exists: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name, "run")
        if exists:
            directory.mkdir(mode=0o555)
        directory.parent.chmod(0o555)
        with unprivileged_user(), pytest.raises(PermissionError) as caught:
            Run(directory, sinks=[]).open()
        directory.parent.chmod(0o755)
        assert f"Run directory '{directory}' cannot be created or written: Permission denied." in str(caught.value)
        assert "Choose another run directory" in str(caught.value)
        assert directory.exists() == exists


def test_open_of_directory_below_a_file_names_both(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match=r"Run directory '.*file/run' cannot be .*: '.*file'$"):
        Run(tmp_path / "file/run", sinks=[]).open()
