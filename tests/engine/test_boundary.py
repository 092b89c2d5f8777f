"""Boundaries of iterations: what follows the ``with`` block belongs to the iteration, and when the training ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions


def make_manager(out_dir: Path, every: int = 1, epochs: int = 2, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(1, 1, bias=False),
        epochs,
        [extensions.snapshot(trigger=(every, "iteration"))],
        iters_per_epoch=3,
        out_dir=out_dir,
        **options,
    )


def set_weight(manager: pte.ExtensionsManager, value: float) -> None:
    manager.models["main"].weight.data.fill_(value)


def saved_weights(out_dir: Path) -> list[float]:
    paths = sorted(out_dir.glob("snapshot_iter_*"), key=lambda path: int(path.name.rsplit("_", 1)[1]))
    return [torch.load(path)["models"]["main"]["weight"].item() for path in paths]


def test_snapshot_contains_changes_after_block_in_loop_over_batches(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    for _ in manager.batches(range(3)):
        with manager.run_iteration():
            pass
        set_weight(manager, manager.iteration)
    assert saved_weights(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_snapshot_contains_changes_after_block_in_loop_that_reads_stop_trigger(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    while not manager.stop_trigger:
        with manager.run_iteration():
            pass
        set_weight(manager, manager.iteration)
    assert saved_weights(tmp_path) == [1, 2, 3, 4, 5, 6]


ENDS: dict[str, Callable[[pte.ExtensionsManager], object]] = {
    "close": lambda manager: manager.close(),
    "exit": lambda manager: manager.__exit__(None, None, None),
    "error": lambda manager: manager.__exit__(ValueError, ValueError(), None),
    "run closed": lambda manager: manager.run.close(),
}


@pytest.mark.parametrize("end", ENDS)
def test_due_snapshot_is_saved_when_loop_is_left(tmp_path: Path, end: str) -> None:
    manager = make_manager(tmp_path, every=2)
    for _ in manager.batches(range(3)):
        with manager.run_iteration():
            pass
        set_weight(manager, manager.iteration)
        if manager.iteration == 4:
            break
    ENDS[end](manager)
    assert saved_weights(tmp_path) == [2, 4]


def test_next_batch_within_block_does_not_end_iteration(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    batches = manager.batches(range(6))
    for _ in batches:
        with manager.run_iteration():
            next(batches)
            assert not list(tmp_path.glob(f"snapshot_iter_{manager.iteration + 1}"))
            set_weight(manager, manager.iteration + 1)
    assert saved_weights(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_snapshot_called_directly_saves_immediately(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, every=100)
    with manager.run_iteration():
        set_weight(manager, 7)
    manager.get_extension("snapshot")(manager)
    set_weight(manager, 8)
    manager.close()
    assert saved_weights(tmp_path) == [7]


def test_run_stays_open_until_loop_reads_that_training_is_over(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, epochs=1)
    for _ in range(3):
        assert not manager.stop_trigger
        with manager.run_iteration():
            pass
    assert manager.run.is_open
    manager.run.log_metrics({"test/accuracy": 0.5}, manager.iteration)
    assert manager.stop_trigger
    assert (manager.is_ended, manager.run.is_open) == (True, False)


def test_extension_that_reads_stop_trigger_does_not_end_run(tmp_path: Path) -> None:
    seen = []
    manager = make_manager(tmp_path, epochs=1)
    manager.extend(lambda manager: seen.append(manager.stop_trigger), name="late", priority=-200)
    manager.extend(lambda manager: seen.append(manager.stop_trigger), name="early")
    for _ in range(3):
        with manager.run_iteration():
            pass
    assert manager.run.is_open
    manager.close()
    assert seen == [False, False, False, False, False, True]


def test_manager_in_directory_of_complete_training_closes_it(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, epochs=1)
    for _ in range(3):
        with manager.run_iteration():
            pass
    other = make_manager(tmp_path, epochs=1)
    checkpoint = other.resume()
    assert checkpoint is not None
    assert (checkpoint.step, manager.is_ended) == (3, True)


def test_manager_in_directory_of_incomplete_training_is_refused(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, epochs=1)
    with manager.run_iteration():
        pass
    with pytest.raises(pte.DirectoryInUseError, match="in use by another manager"):
        make_manager(tmp_path).resume()


def test_values_reported_before_training_are_logged_at_step_zero(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager({}, 1, [extensions.LogReport()], iters_per_epoch=2, out_dir=tmp_path)
    manager.extend(
        lambda manager: pte.report({"val/loss": 10.0 - manager.iteration}),
        name="evaluate",
        trigger=(1, "epoch"),
        priority=pte.PRIORITY_WRITER,
        call_before_training=True,
    )
    for _ in manager.batches(range(2)):
        with manager.run_iteration():
            pass
    assert [(row.step, row.values) for row in manager.run.rows()] == [(0, {"val/loss": 10.0}), (2, {"val/loss": 8.0})]


def test_checkpoints_include_due_snapshot(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, every=100)
    manager.extend(extensions.snapshot("now_{.iteration}", trigger=(1, "iteration"), asynchronous=False))
    with manager.run_iteration():
        pass
    assert [checkpoint.step for checkpoint in manager.run.checkpoints()] == [1]
