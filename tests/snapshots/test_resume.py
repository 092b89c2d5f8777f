"""Snapshots that resume() selects without a source."""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.events import Checkpoint, CheckpointRemoved
from pte_tracking._store.journal_reader import find_events
from tests.snapshots.resume_training import EVERY, checkpoints, damage, make_manager, resume_and_inspect, run


def test_resume_empty_directory_starts_new_run(tmp_path: Path) -> None:
    assert resume_and_inspect(tmp_path) == (None, -1)
    assert (tmp_path / "run.json").exists()


def test_resume_latest_selects_newest_snapshot(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 11)
    assert resume_and_inspect(tmp_path) == (11, 11)
    assert not (tmp_path / "previous").exists()


def test_resume_latest_ignores_file_times_and_unlisted_files(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 11)
    shutil.copy(tmp_path / "snapshot_iter_4", tmp_path / "snapshot_iter_4.bak")
    shutil.copy(tmp_path / "snapshot_iter_3", tmp_path / "snapshot_iter_99")
    os.utime(tmp_path / "snapshot_iter_5")
    assert resume_and_inspect(tmp_path) == (11, 11)


def test_resume_without_snapshot_restarts_same_run(tmp_path: Path) -> None:
    rare = extensions.snapshot(trigger=(5, "iteration"))
    manager = make_manager(tmp_path, rare, params={"lr": 1})
    run(manager, 3)
    restarted = make_manager(tmp_path, extensions.snapshot(trigger=(5, "iteration")))
    assert restarted.resume() is None
    assert restarted.run.id == manager.run.id
    assert [row.step for row in restarted.run.rows()] == [1, 2, 3]
    run(restarted, 2)
    assert [row.step for row in restarted.run.rows()] == [1, 2]


@pytest.mark.parametrize(
    "damage_file", [damage, lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 3000)]
)
def test_resume_damaged_snapshot_is_skipped_with_warning(
    damage_file: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_manager(tmp_path), 5)
    damage_file(tmp_path / "snapshot_iter_5")
    (tmp_path / "snapshot_iter_4").unlink()
    assert resume_and_inspect(tmp_path) == (3, 3)
    messages = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    (message,) = messages
    assert re.search(f"skipping 2 unusable snapshots: {tmp_path}/snapshot_iter_5: (damaged|truncated): ", message)
    assert f"; {tmp_path}/snapshot_iter_4: file not found. Using snapshot_iter_3 instead." in message
    assert "To keep them, stop this training, restore a file from a copy" in message


def test_resume_truncated_snapshot_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(make_manager(tmp_path), 3)
    os.truncate(tmp_path / "snapshot_iter_3", 3000)
    resumed = make_manager(tmp_path)
    resumed.resume()
    run(resumed, 2)
    (message,) = [message for message in caplog.messages if "snapshot_iter_3" in message]
    assert "truncated: the file has 3,000 bytes, but " in message


def test_resume_all_snapshots_damaged_restarts_run_with_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_manager(tmp_path), 2)
    for name in ("snapshot_iter_1", "snapshot_iter_2"):
        (tmp_path / name).write_bytes(b"nothing")
    assert resume_and_inspect(tmp_path) == (None, -1)
    warning, restart = caplog.messages
    assert "resume: skipping 2 unusable snapshots: " in warning
    assert re.search(r"snapshot_iter_2: truncated: the file has 7 bytes, but [\d,]+ bytes were recorded;", warning)
    assert "No other one is in the run directory." in warning
    assert restart == f"{tmp_path}: the run has no usable snapshot, so it restarts at iteration 0."


def drop_registration(out: Path, step: int) -> None:
    """Truncate the journal before the registration of a snapshot, as a crash at that moment does."""
    journal = out / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    (cut,) = (i for i, line in enumerate(lines) if b'"kind":"checkpoint"' in line and b'"step":%d,' % step in line)
    journal.write_bytes(b"".join(lines[:cut]))


def test_resume_unregistered_snapshot_is_registered_and_selected(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, asynchronous=False)), 3, {3: 0.25})
    drop_registration(tmp_path, 3)
    assert resume_and_inspect(tmp_path, rewinds=True) == (3, 3)
    newest = pte.Run(tmp_path).checkpoints()[-1]
    assert (newest.path, newest.step, newest.epoch, newest.values) == ("snapshot_iter_3", 3, 1.5, {"loss": 0.25})


def test_resume_after_killed_resume_registers_checkpoint_again(tmp_path: Path) -> None:
    """A rewind supersedes the registration of the snapshot itself. A later resume registers it again."""
    best = {"trigger": EVERY, "keep_best": ("loss", "min", 2)}
    run(make_manager(tmp_path, extensions.snapshot(**best)), 4, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
    state = torch.load(tmp_path / "snapshot_iter_4")
    killed = pte.Run(tmp_path)
    killed.open(at=state["run"])
    killed.rewind()
    killed.close()
    assert ("snapshot_iter_4", 4) not in checkpoints(tmp_path)
    manager = make_manager(tmp_path, extensions.snapshot(**best))
    resumed_from = manager.resume()
    assert resumed_from is not None
    assert resumed_from.step == 4
    run(manager, 1, {5: 5.0})
    assert checkpoints(tmp_path) == [("snapshot_iter_1", 1), ("snapshot_iter_2", 2), ("snapshot_iter_5", 5)]


def test_resume_fixed_filename_registers_unregistered_snapshot(tmp_path: Path) -> None:
    def make_fixed_name_snapshot() -> Any:
        return extensions.snapshot("newest", trigger=EVERY, asynchronous=False)

    run(make_manager(tmp_path, make_fixed_name_snapshot()), 3)
    assert checkpoints(tmp_path) == [("newest", 3)]
    drop_registration(tmp_path, 3)
    assert checkpoints(tmp_path) == [("newest", 2)]
    assert resume_and_inspect(tmp_path, "latest", make_fixed_name_snapshot(), rewinds=True) == (3, 3)
    assert checkpoints(tmp_path) == [("newest", 3)]


def test_resume_latest_ignores_superseded_snapshot(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 5)
    rewound = make_manager(tmp_path)
    rewound.resume(tmp_path / "snapshot_iter_2")
    rewound.run.rewind()
    assert [row.step for row in rewound.run.rows()] == [1, 2]
    rewound.close()
    assert (tmp_path / "snapshot_iter_5").exists()
    assert checkpoints(tmp_path) == [("snapshot_iter_1", 1), ("snapshot_iter_2", 2)]
    assert resume_and_inspect(tmp_path) == (2, 2)


def test_resume_name_of_snapshot_in_run_directory_is_selected(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 3)
    checkpoint = make_manager(tmp_path).resume("snapshot_iter_2")
    assert checkpoint is not None
    assert checkpoint.step == 2


@pytest.mark.parametrize(
    ("source", "meant"), [("Latest", "'latest'"), ("bset", "'best'"), ("snapshot_iter2", "'snapshot_iter_2'")]
)
def test_resume_and_load_misspelled_source_suggest_names(source: str, meant: str, tmp_path: Path) -> None:
    run(make_manager(tmp_path), 3)
    manager = make_manager(tmp_path)
    message = f"Pass 'latest', 'best', or a path.*Did you mean {meant}"
    with pytest.raises(pte.SnapshotError, match=message):
        manager.resume(source)
    with pytest.raises(pte.SnapshotError, match=message):
        pte.load(tmp_path, source)


def test_resume_path_accepts_superseded_snapshot(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 5)
    assert resume_and_inspect(tmp_path, tmp_path / "snapshot_iter_2", rewinds=True) == (2, 2)
    assert resume_and_inspect(tmp_path, tmp_path / "snapshot_iter_4", rewinds=True) == (4, 4)
    assert [row.step for row in pte.Run(tmp_path).rows()] == [1, 2, 3, 4]


def test_resume_keeps_pruned_checkpoints_removed(tmp_path: Path) -> None:
    def two() -> Any:
        return extensions.snapshot(trigger=EVERY, n_retains=2)

    run(make_manager(tmp_path, two()), 5)
    assert resume_and_inspect(tmp_path, "latest", two()) == (5, 5)
    assert checkpoints(tmp_path) == [("snapshot_iter_4", 4), ("snapshot_iter_5", 5)]
    manager = make_manager(tmp_path, two())
    manager.resume()
    run(manager, 1)
    assert checkpoints(tmp_path) == [("snapshot_iter_5", 5), ("snapshot_iter_6", 6)]
    assert not (tmp_path / "snapshot_iter_4").exists()


def test_retention_prunes_after_successor_is_registered(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, n_retains=1)), 3)
    journal = tmp_path / "journal.jsonl"
    registered = {event.path: event.seq for event, _ in find_events(journal, Checkpoint)}
    removed = {event.path: event.seq for event, _ in find_events(journal, CheckpointRemoved)}
    assert registered["snapshot_iter_2"] < removed["snapshot_iter_1"]
    assert registered["snapshot_iter_3"] < removed["snapshot_iter_2"]


def test_resume_finished_training_yields_no_batches(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 20)
    manager = make_manager(tmp_path)
    manager.resume()
    assert manager.stop_trigger
    assert list(manager.batches([1, 2])) == []


def test_resume_finished_training_with_more_epochs_continues(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 20)
    longer = make_manager(tmp_path, stop_trigger=(12, "epoch"))
    longer.resume()
    assert not longer.stop_trigger
    run(longer, 4)
    assert longer.stop_trigger


def test_autoload_resumes_at_first_iteration(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 3)
    manager = make_manager(tmp_path, extensions.snapshot(trigger=EVERY, autoload=True))
    assert manager.iteration == 0
    iterations = []
    for _ in manager.batches([1, 2]):
        with manager.run_iteration():
            pte.report({"loss": 1})
        iterations.append(manager.iteration)
    assert iterations[0] == 4
    assert not (tmp_path / "previous").exists()


def test_resume_registers_unregistered_snapshot_with_the_name_of_an_earlier_one(tmp_path: Path) -> None:
    def make_snapshot() -> Any:
        return extensions.snapshot("snapshot_{.epoch}", trigger=EVERY, n_retains=1, asynchronous=False)

    run(make_manager(tmp_path, make_snapshot()), 3)
    ((name, step),) = checkpoints(tmp_path)
    drop_registration(tmp_path, step)
    assert checkpoints(tmp_path) == [(name, step - 1)]
    assert resume_and_inspect(tmp_path, "latest", make_snapshot(), rewinds=True)[0] == step


def test_resume_in_a_directory_in_use_raises_before_it_reads_snapshots(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_manager(tmp_path), 2)
    script = f"import pte_tracking as pte; run = pte.Run({str(tmp_path)!r}, resume=True); run.open(); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as training:
        assert training.stdout is not None
        training.stdout.readline()
        (tmp_path / "snapshot_iter_2").unlink()  # as the retention of that training does
        with pytest.raises(pte.DirectoryInUseError, match=f"in use by process {training.pid}"):
            make_manager(tmp_path).resume()
        training.communicate(b"\n", timeout=60)
    assert "skipping" not in caplog.text


def test_resume_of_another_training_names_its_directory_and_each_part_once(tmp_path: Path) -> None:
    def make_with(model: torch.nn.Module) -> pte.ExtensionsManager:
        return make_manager(tmp_path, model=model, optimizers=torch.optim.Adam(model.parameters()))

    run(make_with(torch.nn.Linear(3, 2)), 2)
    other = make_with(torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.Linear(5, 2)))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + "', choose another out_dir") as error:
        other.resume()
    assert str(error.value).endswith("resume(allow=['main']).")
