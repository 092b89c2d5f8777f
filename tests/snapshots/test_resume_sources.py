"""Snapshots that resume() selects by metric, path, or URI."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import pte_tracking as pte
from pte_backends.json import JsonSink
from pte_tracking import extensions
from pte_tracking._distributed.world import SINGLE_PROCESS
from pte_tracking._snapshots import fetching, selection
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._store import lock
from pte_tracking._store.layout import WRITER_LOCK
from pte_tracking.sinks import Connection, RunView, Sink
from tests.snapshots.resume_training import EVERY, checkpoints, damage, make_manager, resume_and_inspect, run

# -- best --------------------------------------------------------------------------------------------------------------


def make_best_snapshot(mode: str, key: str = "loss") -> Any:
    return extensions.snapshot(trigger=EVERY, keep_best=(key, mode, 9))


def test_resume_best_selects_best_intact_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(make_manager(tmp_path, make_best_snapshot("min")), 4, {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan")})
    assert resume_and_inspect(tmp_path, "best", make_best_snapshot("max")) == (1, 1)
    shutil.rmtree(tmp_path)
    run(make_manager(tmp_path, make_best_snapshot("min")), 4, {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan")})
    damage(tmp_path / "snapshot_iter_2")
    assert resume_and_inspect(tmp_path, "best", make_best_snapshot("min")) == (3, 3)
    assert "snapshot_iter_2" in caplog.text


def test_resume_best_without_usable_metric_raises(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 2)
    with pytest.raises(ValueError, match=r"no metric is configured.*snapshot\(keep_best="):
        make_manager(tmp_path).resume("best")
    with pytest.raises(LookupError, match=r"no snapshot has a finite value of 'val/loss'\. Available metrics: loss"):
        make_manager(tmp_path, make_best_snapshot("min", "val/loss")).resume("best")


def test_resume_best_empty_directory_starts_new_run(tmp_path: Path) -> None:
    assert resume_and_inspect(tmp_path, "best", make_best_snapshot("min")) == (None, -1)


# -- interrupted replacement ------------------------------------------------------------------------------------------


def test_resume_does_not_restore_replaced_snapshot_of_running_training(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 1)
    replaced = tmp_path / ".snapshot_iter_1.replaced"
    (tmp_path / "snapshot_iter_1").rename(replaced)
    training = lock.Lock(tmp_path / WRITER_LOCK)
    selection.select_snapshot(pte.Run(tmp_path, sinks=[]), "latest", [], None, SINGLE_PROCESS)
    assert replaced.exists()
    training.release()
    assert resume_and_inspect(tmp_path) == (1, 1)
    assert not replaced.exists()


# -- invalid -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [2, True, None])
def test_resume_source_of_wrong_type_raises_type_error(source: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"resume: expected 'latest', 'best', a path, or a URI, got "):
        make_manager(tmp_path).resume(source)


def test_resume_run_directory_raises_error_that_asks_for_a_snapshot(tmp_path: Path) -> None:
    run(make_manager(tmp_path / "a"), 2)
    with pytest.raises(
        SnapshotError, match=r"a run directory, not a snapshot\. Pass one of its snapshots, or continue "
    ):
        make_manager(tmp_path / "b").resume(tmp_path / "a")


# -- path --------------------------------------------------------------------------------------------------------------


def test_resume_relative_path_loads_that_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(make_manager(tmp_path / "result"), 4)
    monkeypatch.chdir(tmp_path)
    assert resume_and_inspect(tmp_path / "result", "result/snapshot_iter_3") == (3, 3)
    assert resume_and_inspect(tmp_path / "result", Path("result") / "snapshot_iter_2") == (2, 2)


def test_resume_snapshot_without_journal_into_new_directory_continues(tmp_path: Path) -> None:
    run(make_manager(tmp_path / "first"), 3)
    shutil.copy(tmp_path / "first/snapshot_iter_3", tmp_path / "snapshot_iter_3")
    assert make_manager(tmp_path / "second").resume(tmp_path / "snapshot_iter_3").step == 3


@pytest.mark.parametrize("key", ["log", "path"])
def test_resume_journal_that_names_a_foreign_file_raises_and_keeps_it(key: str, tmp_path: Path) -> None:
    run(make_manager(tmp_path / "theirs"), 3)
    lines = [json.loads(line) for line in (tmp_path / "theirs/journal.jsonl").read_text().splitlines()]
    kind = "metrics" if key == "log" else "checkpoint"
    forged = [json.dumps(line | ({key: "fit.py"} if line["kind"] == kind else {})) + "\n" for line in lines]
    assert "".join(forged).count("fit.py") > 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/fit.py").write_text("print()")
    (tmp_path / "download").mkdir()
    (tmp_path / "download/journal.jsonl").write_text("".join(forged))
    state = torch.load(tmp_path / "theirs/snapshot_iter_3")
    state["run"]["position"] = sum(map(len, forged[: state["run"]["seq"]]))
    torch.save(state, tmp_path / "download/snapshot_iter_3")
    manager = make_manager(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"names 'fit\.py', which exists in .* Move that file"):
        manager.resume(tmp_path / "download/snapshot_iter_3")
    assert (tmp_path / "mine/fit.py").read_text() == "print()"
    assert not (tmp_path / "mine/journal.jsonl").exists()


@pytest.mark.parametrize("damage_file", [damage, Path.unlink, lambda path: path.write_bytes(b"hello")])
def test_resume_damaged_path_raises_and_keeps_journal(damage_file: Any, tmp_path: Path) -> None:
    run(make_manager(tmp_path), 3)
    damage_file(tmp_path / "snapshot_iter_3")
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(SnapshotError, match="snapshot_iter_3: "):
        make_manager(tmp_path).resume(tmp_path / "snapshot_iter_3")
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_resume_copied_snapshot_imports_its_run(tmp_path: Path) -> None:
    """A backend stores only the snapshot and the journal of a run."""
    first = make_manager(tmp_path / "first")
    run(first, 5)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("snapshot_iter_3", "journal.jsonl"):
        shutil.copy(tmp_path / "first" / name, copy)
    second = make_manager(tmp_path / "second")
    checkpoint = second.resume(copy / "snapshot_iter_3")
    assert checkpoint is not None
    assert checkpoint.path == "snapshot_iter_3"
    assert second.run.id == first.run.id
    second.run.rewind()
    assert [row.step for row in second.run.rows()] == [1, 2, 3]
    run(second, 1)
    assert [row.step for row in second.run.rows()] == [1, 2, 3, 4]
    assert resume_and_inspect(tmp_path / "second") == (4, 4)


def test_resume_imported_snapshot_is_available_to_next_resume(tmp_path: Path) -> None:
    run(make_manager(tmp_path / "first"), 5)
    assert resume_and_inspect(tmp_path / "second", tmp_path / "first" / "snapshot_iter_3", rewinds=True) == (3, 3)
    shutil.rmtree(tmp_path / "first")
    assert resume_and_inspect(tmp_path / "second") == (3, 3)


def test_resume_snapshot_of_other_run_archives_current_run(tmp_path: Path) -> None:
    run(make_manager(tmp_path / "first"), 5)
    other = make_manager(tmp_path / "second")
    run(other, 4)
    assert resume_and_inspect(tmp_path / "second", tmp_path / "first" / "snapshot_iter_3", rewinds=True) == (3, 3)
    archive = tmp_path / "second" / "previous" / other.run.id
    assert sorted(path.name for path in archive.glob("snapshot_*")) == [f"snapshot_iter_{i}" for i in (1, 2, 3, 4)]
    assert sorted(path.name for path in (tmp_path / "second").glob("snapshot_*")) == ["snapshot_iter_3"]


def test_resume_manually_saved_state_rewinds_run(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with manager.run_iteration():
        manager.models["main"].get_parameter("weight").data.fill_(1)
    torch.save(manager.state_dict(), tmp_path / "by_hand.pt")
    run(manager, 2)
    assert resume_and_inspect(tmp_path, tmp_path / "by_hand.pt", rewinds=True) == (1, 1)
    assert [row.step for row in pte.Run(tmp_path).rows()] == [1]


# -- backend -----------------------------------------------------------------------------------------------------------


class Shelf(Sink):
    """Sink that stores checkpoints in a directory."""

    name = "shelf"
    schemes = ("shelf",)
    root: ClassVar[Path]

    def fetch(self, uri: str, directory: Path) -> Path:
        assert list(directory.iterdir()) == []
        if uri != "shelf:/entry":
            raise LookupError(f"{uri} is not on the shelf")
        for name in ("snapshot_iter_3", "journal.jsonl"):
            shutil.copy(self.root / name, directory)
        return directory / "snapshot_iter_3"

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        raise NotImplementedError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Shelf.root = tmp_path / "shelf"
    run(make_manager(Shelf.root), 5)
    monkeypatch.setattr(fetching, "load_sinks", lambda: [JsonSink, Shelf])
    return Shelf.root


def test_resume_uri_fetches_checkpoint_into_new_directory(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert resume_and_inspect(out, "shelf:/entry", rewinds=True) == (3, 3)
    assert [row.step for row in pte.Run(out).rows()] == [1, 2, 3]
    assert checkpoints(out)[-1] == ("snapshot_iter_3", 3)
    assert list(out.glob(".fetched*")) == []
    shutil.rmtree(shelf)
    assert resume_and_inspect(out) == (3, 3)


def test_resume_uri_keeps_earlier_checkpoints_registered(shelf: Path, tmp_path: Path) -> None:
    """Earlier checkpoints are missing locally but exist in the backend, so they are not removed."""
    assert resume_and_inspect(tmp_path / "new", "shelf:/entry", rewinds=True) == (3, 3)
    assert [step for _, step in checkpoints(tmp_path / "new")] == [1, 2, 3]


def test_resume_uri_unavailable_or_damaged_raises(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="is not on the shelf"):
        make_manager(tmp_path / "new").resume("shelf:/two")
    assert list((tmp_path / "new").glob(".fetched*")) == []
    with pytest.raises(ValueError, match=r"no installed sink supports drawer: URIs\. Supported schemes: shelf"):
        make_manager(tmp_path / "new").resume("drawer:/entry")
    damage(shelf / "snapshot_iter_3")
    with pytest.raises(SnapshotError, match="damaged"):
        make_manager(tmp_path / "new").resume("shelf:/entry")
    assert list((tmp_path / "new").glob(".fetched*")) == []
