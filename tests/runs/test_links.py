"""Run directories that are reached through symbolic links."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_backends.wandb import WandbSink
from pte_tracking import extensions
from pte_tracking._delivery.sync import sync
from pte_tracking.sinks import JOURNAL, Artifact, find_events
from tests.pictures import PNG


@pytest.fixture
def link(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "latest").symlink_to("one")
    return tmp_path / "latest"


def point_to(link: Path, target: str) -> None:
    link.with_name("new").symlink_to(target)
    os.replace(link.with_name("new"), link)


@pytest.mark.parametrize("is_open", [False, True])
def test_run_stays_in_directory_when_link_changes(link: Path, is_open: bool) -> None:
    run = pte.Run(link, sinks=["json", "tensorboard"])
    if is_open:
        run.log_metrics({"a": 1.0}, 1)
    point_to(link, "two")
    run.log_metrics({"a": 2.0}, 2)
    run.log_text("note", "text", 2)
    run.close()
    assert run.directory == link.parent / "one"
    assert [row.step for row in run.rows()] == ([1, 2] if is_open else [2])
    assert list(link.parent.joinpath("one").glob("*tfevents*"))
    assert os.listdir(link.parent / "two") == []


def test_dangling_link_creates_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("scratch/run")
    with pte.Run(tmp_path / "link") as run:
        run.log_metrics({"a": 1.0}, 1)
    assert (tmp_path / "scratch" / "run" / JOURNAL).exists()


def test_artifact_given_through_link_is_not_copied(link: Path) -> None:
    with pte.Run(link) as run:
        (link / "notes.txt").write_text("text")
        run.log_artifact(link / "notes.txt")
        run.log_artifact(link.parent / "one" / "notes.txt")
        with pytest.raises(ValueError, match="contains the run directory"):
            run.log_artifact(link)
    paths = [event.path for event, _ in find_events(run.directory / JOURNAL, Artifact)]
    assert paths == ["notes.txt", "notes.txt"]


def test_artifacts_folder_that_is_a_link_is_not_written(link: Path, caplog: pytest.LogCaptureFixture) -> None:
    (link / "artifacts").symlink_to("../two")
    (link.parent / "notes.txt").write_text("text")
    with pte.Run(link) as run:
        run.log_artifact(link.parent / "notes.txt")
    assert os.listdir(link.parent / "two") == []
    assert "Symbolic links in a run directory are not followed. Remove the link" in caplog.text


def log_and_deliver(directory: Path, *, resume: bool = False) -> None:
    with pte.Run(directory, sinks=["json", "tensorboard", WandbSink("p")], resume=resume) as run:
        for step in range(1, 4):
            run.log_metrics({"loss": 1.0 / step}, step)
        run.log_metrics({"loss": 1.0}, 4, log="val/log")
        run.log_image("image", PNG, 4)
        run.log_text("note", "text", 4)
    sync(directory, timeout=0.2)


def names_below(directory: Path) -> list[str]:
    """Return the names of the files below a directory, without lock files, which hold no data."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith("lock")]
    return sorted(path.relative_to(directory).as_posix() for path in files)


@pytest.mark.slow
def test_run_writes_through_no_planted_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    log_and_deliver(tmp_path / "model")
    victim = tmp_path / "victim"
    for number, name in enumerate(names_below(tmp_path / "model")):
        path = tmp_path / f"run{number}" / name
        path.parent.mkdir(parents=True)
        victim.write_text("kept" * 100)
        path.symlink_to(victim)
        with contextlib.suppress(Exception):
            log_and_deliver(tmp_path / f"run{number}")
        assert victim.read_text() == "kept" * 100, name


@pytest.mark.slow
def test_resumed_run_writes_through_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    log_and_deliver(tmp_path / "model")
    victim = tmp_path / "victim"
    for number, name in enumerate(names_below(tmp_path / "model")):
        copy = shutil.copytree(tmp_path / "model", tmp_path / f"run{number}")
        victim.write_bytes((copy / name).read_bytes() + b"kept")
        before = victim.read_bytes()
        (copy / name).unlink()
        (copy / name).symlink_to(victim)
        with contextlib.suppress(Exception):
            log_and_deliver(copy, resume=True)
        assert victim.read_bytes() == before, name


@pytest.mark.slow
def test_backup_of_hard_links_is_unchanged_by_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    log_and_deliver(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "backup", copy_function=os.link)
    before = {name: (tmp_path / "backup" / name).read_bytes() for name in names_below(tmp_path / "backup")}
    log_and_deliver(tmp_path / "run", resume=True)
    after = {name: (tmp_path / "backup" / name).read_bytes() for name in names_below(tmp_path / "backup")}
    assert after == before
    log_and_deliver(tmp_path / "backup", resume=True)
    assert len(pte.Run(tmp_path / "backup").rows()) == 6


@pytest.mark.parametrize("source", ["latest/snapshot_iter_2", "one/snapshot_iter_2"])
@pytest.mark.parametrize("out_dir", ["latest", "one"])
def test_resume_from_own_snapshot_copies_nothing(
    link: Path, source: str, out_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(link.parent)

    def make_manager() -> pte.ExtensionsManager:
        snapshot = extensions.snapshot(trigger=(1, "iteration"))
        return pte.ExtensionsManager({}, 4, [snapshot], iters_per_epoch=1, out_dir=out_dir)

    manager = make_manager()
    for _ in range(3):
        with manager.run_iteration():
            pass
    manager.close()
    manager = make_manager()
    assert manager.resume(source)
    while not manager.stop_trigger:
        with manager.run_iteration():
            pass
    names = sorted(path.name for path in (link.parent / "one").glob("snapshot*"))
    assert names == [f"snapshot_iter_{step}" for step in range(1, 5)]
