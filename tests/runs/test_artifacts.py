"""Copies of logged files and directories."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read_effective
from tests.users import unprivileged_user


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with two files."""
    directory = tmp_path / "code"
    (directory / "sub").mkdir(parents=True)
    (directory / "a.py").write_text("a")
    (directory / "sub" / "b.py").write_text("b")
    return directory


def log(source: Path, run_directory: Path) -> dict[str, str]:
    """Log an artifact. Return the contents of the files in the run, by path."""
    with pte.Run(run_directory) as run:
        run.log_artifact(source)
    (event,) = (
        event for event, _ in read_effective(run_directory / "journal.jsonl") if isinstance(event, events.Artifact)
    )
    root = run_directory / event.path
    assert not any(path.is_symlink() for path in root.rglob("*"))
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


FILES = {"a.py": "a", "sub/b.py": "b"}


def test_log_artifact_directory_without_links_is_copied_without_message(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert log(source, tmp_path / "run") == FILES
    assert caplog.messages == []


def test_log_artifact_leaves_out_links_and_pipes_with_one_warning(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_text("large")
    (source / "nothing").symlink_to("/nowhere/at/all")
    (source / "latest").symlink_to(".")
    (source / "sub" / "data").symlink_to(outside)
    (source / "itself").symlink_to("itself")
    os.mkfifo(source / "pipe")
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        assert log(source, tmp_path / "run") == FILES
    (message,) = caplog.messages
    assert f"The copy of artifact {str(source)!r} in the run lacks: itself (" in message
    assert (
        "latest (link to a directory), nothing (link to nothing), pipe (neither a file nor a directory), "
        "sub/data (link to a directory)." in message
    )


def test_log_artifact_link_to_file_is_copied_as_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("blob")
    (source / "outside").symlink_to(tmp_path / "blob")
    (source / "inside").symlink_to("a.py")
    assert log(source, tmp_path / "run") == FILES | {"outside": "blob", "inside": "a"}


def test_log_artifact_link_to_directory_is_copied_if_logged_itself(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    assert log(tmp_path / "link", tmp_path / "run") == FILES


def test_log_artifact_unreadable_entries_are_left_out(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o777)
        shutil.copytree(source, directory / "code")
        (directory / "code" / "key").write_text("secret")
        (directory / "code" / "key").chmod(0o000)
        (directory / "code" / "private").mkdir(mode=0o000)
        with unprivileged_user(), caplog.at_level(logging.WARNING, "pte_tracking"):
            assert log(directory / "code", directory / "run") == FILES
        assert "lacks: key (Permission denied), private (Permission denied)." in caplog.text
        (directory / "code" / "private").chmod(0o700)


def test_log_artifact_with_many_unreadable_entries_names_five(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        (source / f"link{number}").symlink_to("/nowhere")
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        log(source, tmp_path / "run")
    assert "link4 (link to nothing) and 3 more." in caplog.text


def test_log_artifact_held_until_the_run_opens_warns_once(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "nothing").symlink_to("/nowhere")
    run = pte.Run(tmp_path / "run")
    run.hold()
    run.log_artifact(source)
    run.open()
    run.close()
    assert sum("lacks: nothing" in message for message in caplog.messages) == 1
    assert (tmp_path / "run" / "artifacts" / "code" / "a.py").is_file()


def test_log_artifact_again_replaces_read_only_files(source: Path, tmp_path: Path) -> None:
    (source / "a.py").chmod(0o400)
    with pte.Run(tmp_path / "run") as run:
        run.log_artifact(source)
        (source / "sub" / "b.py").write_text("changed")
        run.log_artifact(source)
    copy = tmp_path / "run" / "artifacts" / "code"
    assert (copy / "sub" / "b.py").read_text() == "changed"


def test_log_artifact_link_to_directory_that_contains_the_run_raises(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to("work")
    with pte.Run(tmp_path / "work" / "run") as run, pytest.raises(ValueError, match="contains the run directory"):
        run.log_artifact(tmp_path / "link")


def test_log_artifact_pipe_or_socket_raises_value_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pte.Run(tmp_path / "run") as run, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for name in ("pipe", "s"):
            with pytest.raises(ValueError, match=r"path: expected a file or directory, got .* pipe, socket, or device"):
                run.log_artifact(tmp_path / name)
