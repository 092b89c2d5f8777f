"""Run directories of another format are rejected with one line and left unchanged."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._cli import app
from pte_tracking._delivery import follow
from pte_tracking._store.manifest import FORMAT, Manifest, RunNotFoundError

STEPS = 4


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def tree(directory: Path) -> dict[str, tuple[int, bytes | None]]:
    """Modification time and content of a directory and of everything in it."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [directory, *directory.rglob("*")]
    }


def make_manager(directory: Path) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        torch.nn.Linear(1, 1),
        max_epochs=1,
        extensions=[extensions.LogReport(trigger=(1, "iteration")), extensions.snapshot(trigger=(2, "iteration"))],
        iters_per_epoch=STEPS,
        out_dir=directory,
    )


def train(directory: Path) -> None:
    manager = make_manager(directory)
    for _ in range(STEPS):
        with manager.run_iteration():
            pte.report({"loss": 1.0})
    manager.close()


def change_format(directory: Path, number: Any) -> None:
    """Rewrite a run directory as an earlier version wrote it; None removes the format number."""
    path = directory / "run.json"
    manifest = json.loads(path.read_text())
    manifest["format"] = number
    if number is None:
        del manifest["format"]
    path.write_text(json.dumps(manifest))
    (directory / ".lock").write_text("7 on elsewhere\n")
    (directory / "delivery" / "json.json").write_text('{"position": 1, "reaching": 1, "set_aside": {}}')
    (directory / "delivery" / "wake").touch()


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[Any], Path]:
    """Make a run directory with a snapshot and the given format number."""

    def make(number: Any) -> Path:
        directory = tmp_path / "runs" / "old"
        train(directory)
        change_format(directory, number)
        return directory

    return make


def message(directory: Path, number: int) -> str:
    advice = "Use the version that wrote it, or choose another directory."
    if number > FORMAT:
        advice = "Upgrade pte-tracking, or choose another directory."
    return (
        f"{directory}/run.json: run directory format {number} is not supported (this version reads format {FORMAT}). "
        f"{advice}"
    )


@pytest.fixture(params=[(1, 1), (0, 0), (None, 1), (FORMAT + 1, FORMAT + 1)], ids=["1", "0", "missing", "newer"])
def old(request: pytest.FixtureRequest, make_run: Callable[[Any], Path]) -> tuple[Path, str]:
    """Directory of an unsupported format, and the expected message."""
    number, reported = request.param
    directory = make_run(number)
    return directory, message(directory, reported)


def test_new_run_has_current_format(tmp_path: Path) -> None:
    with pte.Run(tmp_path):
        pass
    assert json.loads((tmp_path / "run.json").read_text())["format"] == FORMAT == 2


def test_commands_print_one_line_and_change_nothing(old: tuple[Path, str]) -> None:
    directory, expected = old
    before = tree(directory)
    for words in (
        ("show", directory),
        ("show", directory, "--json"),
        ("verify", directory),
        ("sync", directory),
        ("sync", directory, "--to", "tensorboard"),
        ("export", directory),
        ("compare", directory, directory),
        ("list", directory),
    ):
        done = call(*words)
        assert done.exit_code == 1, words
        assert isinstance(done.exception, SystemExit), (words, done.exception)
        assert done.stderr.splitlines() == [expected], words
        assert done.stdout == "", words
    assert tree(directory) == before


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_list_shows_other_runs(old: tuple[Path, str], options: tuple[str, ...]) -> None:
    directory, expected = old
    train(directory.parent / "supported")
    before = tree(directory.parent)
    done = call("list", directory.parent, *options)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [expected]
    assert str(directory.parent / "supported") in done.stdout
    assert tree(directory.parent) == before


def test_follow_logs_one_line_and_delivers_other_runs(
    old: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory, expected = old
    monkeypatch.setattr(follow, "_SCAN_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        patch.setenv("PTE_TRACKING_DELIVERY", "off")
        with pte.Run(directory.parent / "supported", sinks=["tensorboard"]) as run:
            run.log_metrics({"loss": 1.0}, 1)
    caplog.clear()
    before = tree(directory)
    lines: list[str] = []
    stop = threading.Event()

    def print_line(line: str) -> None:
        lines.append(line)
        if "FINISHED" in line:
            stop.set()

    giving_up = threading.Timer(60, stop.set)
    giving_up.start()
    follow._Follower(directory.parent, print_line, stop, trust=False).run()
    giving_up.cancel()
    assert [record.getMessage() for record in caplog.records if "format" in record.getMessage()] == [expected]
    assert any(line.startswith(f"{directory.parent / 'supported'}: FINISHED") for line in lines)
    assert tree(directory) == before


@pytest.mark.parametrize("source", ["latest", "snapshot_iter_2", "runs:/0123456789abcdef0123456789abcdef"])
def test_resume_raises_and_changes_nothing(old: tuple[Path, str], source: str) -> None:
    directory, expected = old
    before = tree(directory)
    manager = make_manager(directory)
    with pytest.raises(RunNotFoundError) as info:
        manager.resume(directory / source if source.startswith("snapshot") else source)
    assert str(info.value) == expected
    manager.close()
    assert tree(directory) == before


@pytest.mark.parametrize("resume", [True, False])
def test_open_raises_and_changes_nothing(old: tuple[Path, str], resume: bool) -> None:
    directory, expected = old
    before = tree(directory)
    run = pte.Run(directory, resume=resume)
    with pytest.raises(RunNotFoundError) as info:
        run.log_metrics({"loss": 1.0}, 1)
    assert str(info.value) == expected
    assert tree(directory) == before


def test_new_training_raises_and_changes_nothing(old: tuple[Path, str]) -> None:
    directory, expected = old
    before = tree(directory)
    manager = make_manager(directory)
    with pytest.raises(RunNotFoundError) as info, manager.run_iteration():
        pass
    assert str(info.value) == expected
    manager.close()
    assert tree(directory) == before


def test_load_state_dict_raises_and_changes_nothing(old: tuple[Path, str]) -> None:
    directory, expected = old
    before = tree(directory)
    manager = make_manager(directory)
    with pytest.raises(RunNotFoundError) as info:
        manager.load_state_dict(torch.load(directory / "snapshot_iter_4"))
    assert str(info.value) == expected
    manager.close()
    assert tree(directory) == before


@pytest.mark.parametrize("content", [{}, {"format": "2"}, {"format": None, "id": "0" * 32}, [1], {"suite": 5}])
def test_load_foreign_file_is_not_reported_as_format(tmp_path: Path, content: Any) -> None:
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(RunNotFoundError, match="damaged or not"):
        Manifest.load(tmp_path)


def test_archived_run_of_old_format_does_not_prevent_new_run(tmp_path: Path, make_run: Callable[[Any], Path]) -> None:
    directory = make_run(1)
    archived = tmp_path / "new" / "previous" / "old"
    archived.parent.mkdir(parents=True)
    os.rename(directory, archived)
    before = tree(archived)
    train(tmp_path / "new")
    train(tmp_path / "new")
    assert tree(archived) == before
