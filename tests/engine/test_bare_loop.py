"""Loops over a loader without ``manager.batches()`` that are resumed within an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import pte_tracking as pte
from pte_tracking import extensions

DATA: Any = list(range(12))


def until_stop(manager: pte.ExtensionsManager, loader: Any) -> None:
    while not manager.stop_trigger:
        for _ in loader:
            with manager.run_iteration():
                pass


def over_epochs(manager: pte.ExtensionsManager, loader: Any) -> None:
    with manager:
        for _ in range(manager.epoch, 3):
            for _ in loader:
                with manager.run_iteration():
                    pass


def with_positions(manager: pte.ExtensionsManager, loader: Any) -> None:
    for epoch in range(manager.epoch, 3):
        for _ in loader:
            with manager.run_iteration(epoch=epoch, iteration=manager.iteration, epoch_size=4):
                pass
    manager.close()


def with_iterations(manager: pte.ExtensionsManager, loader: Any) -> None:
    while not manager.stop_trigger:
        for iteration, _ in enumerate(loader, start=manager.iteration):
            with manager.run_iteration(iteration=iteration):
                pass


def with_check_in_each_iteration(manager: pte.ExtensionsManager, loader: Any) -> None:
    while not manager.stop_trigger:
        for _ in loader:
            with manager.run_iteration():
                pass
            if manager.stop_trigger:
                break


Loop = Callable[[pte.ExtensionsManager, Any], None]
LOOPS: list[tuple[Loop, int]] = [
    (until_stop, 14),
    (over_epochs, 14),
    (with_positions, 14),
    (with_iterations, 14),
    (with_check_in_each_iteration, 12),
]


def make_manager(out_dir: Path, every: Any = (3, "iteration"), **options: Any) -> pte.ExtensionsManager:
    torch.manual_seed(0)
    snapshot = extensions.snapshot(trigger=every)
    return pte.ExtensionsManager(
        nn.Linear(1, 1), 3, [snapshot], **{"iters_per_epoch": 4, "out_dir": out_dir, "sinks": [], **options}
    )


def stop_after(out_dir: Path, stop: int, **options: Any) -> None:
    manager = make_manager(out_dir, **options)
    for _ in range(stop):
        with manager.run_iteration():
            pass
    manager.close()


@pytest.mark.parametrize(("loop", "iterations"), LOOPS)
def test_bare_loop_resumed_within_an_epoch_warns_once_and_ends_with_its_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loop: Loop, iterations: int
) -> None:
    stop_after(tmp_path, 8)
    manager = make_manager(tmp_path)
    manager.resume()
    assert manager.iteration == 6
    loop(manager, DataLoader(DATA, 3))
    assert (manager.iteration, manager.is_ended) == (iterations, True)
    (message,) = [text for text in caplog.messages if "within" not in text and "manager.batches" in text]
    assert message.startswith("The training was resumed after iteration 2 of 4 of an epoch")


@pytest.mark.parametrize(
    ("loop", "loader"),
    [(until_stop, DataLoader(DATA, 3)), (over_epochs, [DATA] * 4), (with_positions, [DATA] * 4)],
)
def test_bare_loop_resumed_at_the_end_of_an_epoch_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loop: Loop, loader: Any
) -> None:
    stop_after(tmp_path, 6, every=(1, "epoch"))
    manager = make_manager(tmp_path)
    manager.resume()
    loop(manager, loader)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (manager.iteration, manager.is_ended, warnings) == (12, True, [])


@pytest.mark.parametrize("loop", [over_epochs, with_positions])
def test_bare_loop_that_begins_a_pass_before_the_snapshot_warns_at_the_end_of_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loop: Loop
) -> None:
    stop_after(tmp_path, 6, every=(1, "epoch"))
    manager = make_manager(tmp_path)
    manager.resume()
    loop(manager, DataLoader(DATA, 3, shuffle=True))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "begins the next pass over its loader before the snapshot" in warning
    assert (manager.iteration, manager.is_ended) == (12, True)


def test_bare_loop_with_a_stop_trigger_in_iterations_still_refuses_more(tmp_path: Path) -> None:
    stop_after(tmp_path, 8)
    manager = make_manager(tmp_path, stop_trigger=(9, "iteration"))
    manager.resume()
    with pytest.raises(RuntimeError, match="already stopped at iteration 9"):
        until_stop(manager, DataLoader(DATA, 3))


def test_bare_loop_that_counts_from_zero_is_refused_with_a_remedy(tmp_path: Path) -> None:
    stop_after(tmp_path, 8)
    manager = make_manager(tmp_path)
    manager.resume()
    with pytest.raises(ValueError, match=r"expected at least 6.*got 4\. After a resume, iterate over manager\.batches"):
        manager.run_iteration(epoch=1, iteration=4, epoch_size=4)


def test_bare_loop_with_another_epoch_length_keeps_the_completed_epochs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pte_tracking")
    stop_after(tmp_path, 6, every=(1, "epoch"))
    manager = make_manager(tmp_path, iters_per_epoch=6)
    manager.resume()
    assert manager.epoch_detail == 1
    until_stop(manager, DataLoader(DATA, 2))
    assert (manager.iteration, manager.epoch_detail) == (16, 3)
    assert sum("An epoch has 6 iterations and had 4 at the snapshot" in text for text in caplog.messages) == 1


def test_loop_over_batches_with_a_snapshot_of_a_bare_loop_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop_after(tmp_path, 8)
    manager = make_manager(tmp_path)
    manager.resume()
    for _ in manager.batches(DataLoader(DATA, 3)):
        with manager.run_iteration():
            pass
    assert manager.iteration == 12
    assert any("loader 'main': the snapshot contains no position of this name" in text for text in caplog.messages)
