"""Messages of ``resume()``: what was resumed, and whether anything is left to train."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

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
    assert caplog.messages == [f"{tmp_path}: the run has no snapshot, so it restarts at iteration 0."]


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


def test_resume_of_complete_training_with_fewer_epochs_names_the_epochs_to_exceed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(make_manager(tmp_path))
    make_manager(tmp_path, epochs=1).resume()
    assert caplog.messages[-1].endswith("To continue, increase max_epochs, which is 1, to more than 2.")
    make_manager(tmp_path, stop_trigger=(4, "iteration")).resume()
    assert caplog.messages[-1].endswith(
        "To continue, increase stop_trigger, which is (4, 'iteration'), to more than 6."
    )


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
    assert (
        "differ: fold was 1 and is 2; width was absent and is 8. To continue this run, increase max_epochs, which is 2."
        " To train a new run with them, choose another out_dir."
    ) in record.getMessage()


def test_resume_with_many_other_params_names_five(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make_manager(tmp_path, params={f"p{index}": 0 for index in range(9)}))
    make_manager(tmp_path, params={f"p{index}": 1 for index in range(9)}).resume()
    (message,) = caplog.messages
    assert "p4 was 0 and is 1; and 4 more." in message


# -- more iterations ---------------------------------------------------------------------------------------------------


def early_by_iterations(patience: int, length: int) -> pte.triggers.EarlyStoppingTrigger:
    return pte.triggers.EarlyStoppingTrigger((2, "iteration"), "loss", patience, max_trigger=(length, "iteration"))


@pytest.mark.parametrize("is_interrupted", [False, True], ids=["complete", "interrupted"])
@pytest.mark.parametrize("has_loader", [False, True], ids=["no loader", "loader"])
@pytest.mark.parametrize(
    ("first", "second", "argument"),
    [
        ({"max_iterations": 6}, {"max_iterations": 9}, "max_iterations, which is 9"),
        ({"stop_trigger": (6, "iteration")}, {"stop_trigger": (9, "iteration")}, "stop_trigger, which is (9, 'iter"),
        ({"max_iterations": 6}, {"stop_trigger": (9, "iteration")}, "stop_trigger, which is (9, 'iteration')"),
        ({"stop_trigger": early_by_iterations(2, 99)}, {"stop_trigger": early_by_iterations(3, 9)}, "max_trigger of"),
        ({"stop_trigger": early_by_iterations(9, 6)}, {"stop_trigger": early_by_iterations(9, 9)}, "max_trigger of"),
    ],
    ids=["max_iterations", "stop_trigger", "another argument", "patience", "maximum"],
)
def test_training_of_more_iterations_continues_and_its_message_names_their_argument(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_interrupted: bool,
    has_loader: bool,
    first: dict[str, Any],
    second: dict[str, Any],
    argument: str,
) -> None:
    def run(length: dict[str, Any], stop_at: int | None = None) -> int:
        snapshot = extensions.snapshot(trigger=(1, "iteration"))
        length = copy.deepcopy(length)  # a trigger has a state
        manager = pte.ExtensionsManager({}, extensions=[snapshot], out_dir=tmp_path, **length)
        manager.resume()
        for _ in manager.iterations(range(3) if has_loader else None):
            pte.report({"loss": 1.0})
            if manager.iteration == stop_at:
                break
        manager.close()
        return manager.iteration

    assert run(first, stop_at=3 if is_interrupted else None) in (4, 6)
    assert run(second) in (8, 9)
    caplog.clear()
    run(second)
    (message,) = caplog.messages
    assert "nothing is left to train. To continue, " in message
    assert argument in message or "patience" in message


@pytest.mark.parametrize("first", [{"max_iterations": 4}, {"max_epochs": 2}], ids=["iterations", "epochs"])
def test_training_of_iterations_without_a_loader_continues_with_epochs_of_a_loader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: dict[str, int]
) -> None:
    for length, loader, end in (
        (first, range(2) if "max_epochs" in first else None, 4),
        ({"max_epochs": 4}, range(2), 8),
    ):
        manager = pte.ExtensionsManager(
            {}, extensions=[extensions.snapshot(trigger=(2, "iteration"))], out_dir=tmp_path, **length
        )
        manager.resume()
        for _ in manager.iterations(loader):
            pass
        assert manager.iteration == end
    assert not any("nothing is left" in message for message in caplog.messages)


class Stream:
    """Data without a length."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.ones(50, 1, 1))


def test_trainer_of_more_iterations_without_epoch_length_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for iterations in (4, 6):
        optimizer: Any = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        optimizer.target = nn.Linear(1, 1)
        updater = pte.updaters.StandardUpdater(
            Stream(), optimizer, loss_func=lambda batch: batch.sum().requires_grad_()
        )
        snapshot = extensions.snapshot(trigger=(2, "iteration"))
        trainer = pte.Trainer(updater, (iterations, "iteration"), tmp_path, [snapshot])
        assert updater.iters_per_epoch is None
        trainer.resume()
        trainer.run()
        assert trainer.manager.iteration == iterations
    assert f"{tmp_path}: resumed from snapshot_iter_4 at iteration 4 of 6." in caplog.messages
