"""Snapshots chosen by path that are not the ones that their run recorded."""

import os
import shutil
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._snapshots.job import SnapshotJob
from tests.snapshots.resume_training import EVERY, checkpoints, make_manager, resume_and_inspect, run

REFUSED = r"snapshot_iter_2: damaged or replaced: its SHA-256 is [0-9a-f]{64}, but [0-9a-f]{64} was recorded\. The run "


def append_byte(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"\0")


def replace_by_other_step(path: Path) -> None:
    shutil.copy(path.with_name("snapshot_iter_3"), path)


def replace_by_other_run(path: Path) -> None:
    run(make_manager(path.parent.parent / "other"), 4)
    shutil.copy(path.parent.parent / "other" / path.name, path)


def change_archive_comment(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2:] = (1).to_bytes(2, "little")
    path.write_bytes(content + b"x")


@pytest.mark.parametrize("change", [append_byte, replace_by_other_step, replace_by_other_run, change_archive_comment])
def test_snapshot_of_own_run_that_is_not_the_recorded_one_is_refused(tmp_path: Path, change: object) -> None:
    out = tmp_path / "result"
    run(make_manager(out), 4)
    assert callable(change)
    change(out / "snapshot_iter_2")
    journal = (out / "journal.jsonl").read_bytes()
    with pytest.raises(pte.SnapshotError, match=REFUSED + r"recorded this snapshot at step 2\. Choose another one"):
        make_manager(out).resume(out / "snapshot_iter_2")
    with pytest.raises(pte.SnapshotError, match=REFUSED):
        pte.load(out, "snapshot_iter_2")
    with pytest.raises(pte.SnapshotError, match="damaged or replaced"):
        pte.load(out, 2)
    with pytest.raises(pte.SnapshotError, match=REFUSED):
        make_manager(tmp_path / "new").resume(out / "snapshot_iter_2")
    assert (out / "journal.jsonl").read_bytes() == journal
    assert resume_and_inspect(out, out / "snapshot_iter_4") == (4, 4)


@pytest.mark.parametrize("link", ["directory", "file", "copy"])
def test_changed_snapshot_reached_through_a_link_is_refused(tmp_path: Path, link: str) -> None:
    out = tmp_path / "result"
    run(make_manager(out), 4)
    append_byte(out / "snapshot_iter_2")
    path = tmp_path / "link"
    if link == "directory":
        path.symlink_to(out)
        path /= "snapshot_iter_2"
    elif link == "file":
        path.symlink_to(out / "snapshot_iter_2")
    else:  # a backup with hard links
        shutil.copytree(out, path, copy_function=os.link)
        path /= "snapshot_iter_2"
    for directory in (out, tmp_path / "other"):
        with pytest.raises(pte.SnapshotError, match="damaged or replaced"):
            pte.load(directory, path)
        with pytest.raises(pte.SnapshotError, match="damaged or replaced"):
            make_manager(directory).resume(path)


def test_changed_snapshot_that_was_superseded_is_refused(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 4)
    manager = make_manager(tmp_path)
    manager.resume(tmp_path / "snapshot_iter_2")
    with manager.run_iteration():
        pass
    manager.close()
    assert checkpoints(tmp_path)[-1] == ("snapshot_iter_3", 3)
    assert resume_and_inspect(tmp_path / "new", tmp_path / "snapshot_iter_4") == (4, 4)
    append_byte(tmp_path / "snapshot_iter_4")
    with pytest.raises(pte.SnapshotError, match="recorded this snapshot at step 4"):
        make_manager(tmp_path).resume(tmp_path / "snapshot_iter_4")


def test_changed_copy_outside_of_a_run_directory_is_loaded_as_it_is(tmp_path: Path) -> None:
    run(make_manager(tmp_path / "result"), 4)
    copy = tmp_path / "snapshot_iter_2"
    shutil.copy(tmp_path / "result/snapshot_iter_3", copy)
    assert pte.load(tmp_path / "result", copy).step == 3
    checkpoint = make_manager(tmp_path / "new").resume(copy)
    assert checkpoint is not None
    assert checkpoint.step == 3


def test_unrecorded_copy_in_the_run_directory_is_loaded(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 4)
    shutil.copy(tmp_path / "snapshot_iter_3", tmp_path / "kept")
    assert pte.load(tmp_path, "kept").step == 3
    assert resume_and_inspect(tmp_path, tmp_path / "kept") == (3, 3)


def test_snapshot_published_just_before_a_crash_is_newer_than_its_record_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_fixed() -> object:
        return extensions.snapshot("snapshot", trigger=EVERY)

    run(make_manager(tmp_path, make_fixed()), 2)
    manager = make_manager(tmp_path, make_fixed())
    manager.resume()
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotJob, "publish", lambda *_: None)
        with manager.run_iteration():
            pass
        manager.close()
    assert checkpoints(tmp_path) == [("snapshot", 2)]
    assert resume_and_inspect(tmp_path, tmp_path / "snapshot", make_fixed())[0] == 3
