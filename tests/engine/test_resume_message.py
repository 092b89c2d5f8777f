"""Messages of ``resume()``: what was resumed, and whether anything is left to train."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking import extensions


def make_manager(out_dir: Path, epochs: int = 2, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, epochs, [extensions.snapshot()], iters_per_epoch=3, out_dir=out_dir, **options)


def train(manager: pte.ExtensionsManager, stop_at: int | None = None) -> None:
    for _ in manager.batches(range(3)):
        with manager.run_iteration():
            pass
        if manager.iteration == stop_at:
            break
    manager.close()


@pytest.fixture(autouse=True)
def log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")


def test_resume_without_run_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_manager(tmp_path).resume()
    assert caplog.messages == []


def test_resume_of_snapshot_logs_file_and_iteration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_manager(tmp_path), stop_at=4)
    make_manager(tmp_path).resume()
    assert caplog.messages == [f"{tmp_path}: resumed from snapshot_iter_3 at iteration 3 of 6."]


def test_resume_of_snapshot_after_an_error_warns_that_its_iteration_is_not_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"iters_per_epoch": 3, "out_dir": tmp_path}
    manager = pte.ExtensionsManager({}, 2, [extensions.snapshot(snapshot_on_error=True)], **options)
    for batch in manager.batches(range(3)):
        with contextlib.suppress(ZeroDivisionError), manager.run_iteration():
            1 / (1 - batch)
        if batch == 1:
            break
    pte.ExtensionsManager({}, 2, [extensions.snapshot()], **options).resume(tmp_path / "snapshot_iter_1_on_error")
    resumed, warning = caplog.records
    assert resumed.getMessage() == f"{tmp_path}: resumed from snapshot_iter_1_on_error at iteration 1 of 6."
    assert warning.levelname == "WARNING"
    assert "the batch of this iteration is not used again" in warning.getMessage()


def test_resume_of_run_without_snapshot_logs_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_manager(tmp_path), stop_at=2)
    make_manager(tmp_path).resume()
    assert caplog.messages == [f"{tmp_path}: the run has no usable snapshot, so it restarts at iteration 0."]


def test_resume_of_complete_training_logs_that_nothing_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(make_manager(tmp_path))
    make_manager(tmp_path).resume()
    (message,) = caplog.messages
    assert "complete at iteration 6, so nothing is left to train. To continue, increase max_epochs" in message


def train_until_stop(out_dir: Path, stop_trigger: Any, epochs: int | None = None, **resume: Any) -> int:
    """Train with a loss that never improves. Return the number of iterations."""
    options: dict[str, Any] = {"iters_per_epoch": 3, "out_dir": out_dir, "stop_trigger": stop_trigger}
    manager = pte.ExtensionsManager({}, epochs, [extensions.LogReport(), extensions.snapshot()], **options)
    manager.resume(**resume)
    for _ in manager.iterations(range(3)):
        pte.report({"loss": 1.0})
    return manager.iteration


class FiresAt(pte.triggers.Trigger):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def __call__(self, manager: Any) -> bool:
        return bool(manager.iteration >= self.iteration)


def early_stopping(patience: int, length: int = 100) -> pte.triggers.EarlyStoppingTrigger:
    return pte.triggers.EarlyStoppingTrigger(monitor="loss", patience=patience, max_trigger=(length, "epoch"))


@pytest.mark.parametrize(
    ("first", "end", "remedy", "second", "iterations"),
    [
        pytest.param(
            {"stop_trigger": early_stopping(2)},
            " by early stopping, after 2 intervals without a better mean of 'loss'",
            "pass a patience of more than 2 intervals to EarlyStoppingTrigger",
            {"stop_trigger": early_stopping(3)},
            (9, 12),
            id="patience",
        ),
        pytest.param(
            {"stop_trigger": early_stopping(5, 2)},
            "",
            "increase max_trigger of the EarlyStoppingTrigger, which is (2, 'epoch')",
            {"stop_trigger": early_stopping(5, 3)},
            (6, 9),
            id="maximum",
        ),
        pytest.param(
            {"stop_trigger": early_stopping(5), "epochs": 2},
            "",
            "increase max_epochs, which is 2",
            {"stop_trigger": early_stopping(5), "epochs": 3},
            (6, 9),
            id="max_epochs",
        ),
        pytest.param(
            {"stop_trigger": (2, "epoch")},
            "",
            "increase stop_trigger, which is (2, 'epoch')",
            {"stop_trigger": (3, "epoch")},
            (6, 9),
            id="length",
        ),
        pytest.param(
            {"stop_trigger": lambda manager: manager.iteration >= 3},
            " by its stop_trigger",
            "change stop_trigger, and call resume(allow=['stop_trigger'])",
            {"stop_trigger": lambda manager: manager.iteration >= 6, "allow": ["stop_trigger"]},
            (3, 6),
            id="function",
        ),
        pytest.param(
            {"stop_trigger": FiresAt(3), "epochs": 10},
            " by its stop_trigger",
            "change stop_trigger, and call resume(allow=['stop_trigger'])",
            {"stop_trigger": FiresAt(6), "epochs": 10, "allow": ["stop_trigger"]},
            (3, 6),
            id="trigger",
        ),
    ],
)
def test_resume_of_stopped_training_logs_change_that_continues_it(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: dict[str, Any],
    end: str,
    remedy: str,
    second: dict[str, Any],
    iterations: tuple[int, int],
) -> None:
    assert train_until_stop(tmp_path, **first) == iterations[0]
    caplog.clear()
    assert train_until_stop(tmp_path, **first) == iterations[0]
    assert (
        f"{tmp_path}: the training is complete at iteration {iterations[0]}{end}, so nothing is left to train. "
        f"To continue, {remedy}."
    ) in caplog.messages
    assert train_until_stop(tmp_path, **second) == iterations[1]


def test_resume_of_complete_training_with_more_epochs_logs_iteration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(make_manager(tmp_path))
    make_manager(tmp_path, epochs=3).resume()
    assert caplog.messages == [f"{tmp_path}: resumed from snapshot_iter_6 at iteration 6 of 9."]


def test_resume_of_complete_training_with_other_params_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_manager(tmp_path, params={"rate": 0.1, "fold": 1, "depth": 3}))
    make_manager(tmp_path, params={"rate": 0.1, "fold": 2, "width": 8}).resume()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "differ: fold was 1 and is 2; width was absent and is 8. To train" in record.getMessage()


def test_resume_with_many_other_params_names_five(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_manager(tmp_path, params={f"p{index}": 0 for index in range(9)}))
    make_manager(tmp_path, params={f"p{index}": 1 for index in range(9)}).resume()
    (message,) = caplog.messages
    assert "p4 was 0 and is 1; and 4 more." in message
