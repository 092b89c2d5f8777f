"""Tests of LRScheduler with the schedulers of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import pte_tracking as pte
from pte_tracking.extensions import LRScheduler

SaveAndLoad = Callable[[dict[str, Any]], dict[str, Any]]


def make_sgd() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


def make_manager(out: Path, extension: LRScheduler) -> pte.ExtensionsManager:
    optimizer = extension.scheduler.optimizer
    return pte.ExtensionsManager({}, 100, [extension], optimizers=optimizer, iters_per_epoch=4, out_dir=out, sinks=[])


def record_rates(manager: pte.ExtensionsManager, until: int, **values: float) -> list[float]:
    """Return the learning rate during each iteration."""
    seen = []
    while manager.iteration < until:
        with manager.run_iteration(step_optimizers=["main"]):
            seen.append(manager.optimizers["main"].param_groups[0]["lr"])
            pte.report(values)
    return seen


def test_lr_scheduler_default_trigger_steps_at_epoch_end(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, LRScheduler(lr_scheduler.StepLR(make_sgd(), 1, 0.5)))
    assert record_rates(manager, 9) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_lr_scheduler_custom_trigger_steps_when_fired(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, LRScheduler(lr_scheduler.StepLR(make_sgd(), 1, 0.5), trigger=(2, "iteration")))
    assert record_rates(manager, 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]


SCHEDULERS: list[Callable[[torch.optim.Optimizer], Any]] = [
    lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 3, 4, 4], 0.5),
    lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
    lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1)),
    lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 7),
    lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
    lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 2.0, 12, cycle_momentum=False),
    lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=1),
    lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)], [5]
    ),
]


@pytest.mark.parametrize("cut", [1, 4, 6])
@pytest.mark.parametrize("make", SCHEDULERS, ids=lambda make: type(make(make_sgd())).__name__)
def test_lr_scheduler_resumed_matches_uninterrupted_run(
    tmp_path: Path, make: Callable[[Any], Any], cut: int, save_and_load: SaveAndLoad
) -> None:
    def extension() -> LRScheduler:
        return LRScheduler(make(make_sgd()), trigger=(1, "iteration"))

    values = {"val/loss": 1.0}
    whole = record_rates(make_manager(tmp_path / "whole", extension()), 10, **values)
    killed = make_manager(tmp_path / "parts", extension())
    first = record_rates(killed, cut, **values)
    state = save_and_load(killed.state_dict())
    killed.close("KILLED")
    resumed = make_manager(tmp_path / "parts", extension())
    resumed.load_state_dict(state)
    assert first + record_rates(resumed, 10, **values) == whole
    assert len(set(whole)) > 1


def test_lr_scheduler_plateau_uses_val_loss_or_selected_metric(tmp_path: Path) -> None:
    plateau = LRScheduler(lr_scheduler.ReduceLROnPlateau(make_sgd(), patience=1), trigger=(1, "iteration"))
    assert record_rates(make_manager(tmp_path / "a", plateau), 4, **{"val/loss": 1.0}) == [1, 1, 1, 0.1]
    stepper = LRScheduler.step_by_value("accuracy")
    scheduler = lr_scheduler.ReduceLROnPlateau(make_sgd(), "max", patience=1)
    by_other = LRScheduler(scheduler, stepper=stepper, trigger=(1, "iteration"))
    assert record_rates(make_manager(tmp_path / "b", by_other), 4, accuracy=0.5) == [1, 1, 1, 0.1]


def test_lr_scheduler_unreported_plateau_metric_raises_value_error(tmp_path: Path) -> None:
    plateau = LRScheduler(lr_scheduler.ReduceLROnPlateau(make_sgd()), trigger=(1, "iteration"))
    with pytest.raises(ValueError, match=r"'val/loss' was not reported in this iteration. Reported keys: 'loss'"):
        record_rates(make_manager(tmp_path, plateau), 1, loss=1.0)


def test_lr_scheduler_custom_stepper_receives_manager_and_scheduler(tmp_path: Path) -> None:
    calls = []
    scheduler = lr_scheduler.StepLR(make_sgd(), 1)
    extension = LRScheduler(scheduler, stepper=lambda manager, argument: calls.append((manager.iteration, argument)))
    record_rates(make_manager(tmp_path, extension), 8)
    assert calls == [(4, scheduler), (8, scheduler)]


def test_lr_scheduler_waits_for_first_optimizer_step(tmp_path: Path, save_and_load: SaveAndLoad) -> None:
    def make_extension() -> LRScheduler:
        scheduler = lr_scheduler.StepLR(make_sgd(), 1, 0.5)
        return LRScheduler(scheduler, trigger=(1, "iteration"), wait_for_first_optimizer_step=True)

    manager = make_manager(tmp_path, make_extension())
    for _ in range(3):
        with manager.run_iteration():
            pass
    assert record_rates(manager, 5) == [1, 0.5]
    state = save_and_load(manager.state_dict())
    manager.close("KILLED")
    resumed = make_manager(tmp_path, make_extension())
    resumed.load_state_dict(state)
    for _ in range(2):
        with resumed.run_iteration():
            pass
    assert record_rates(resumed, 9) == [0.25, 0.125]


@pytest.mark.parametrize("scheduler", [lr_scheduler.StepLR, 0.1, make_sgd()])
def test_lr_scheduler_invalid_scheduler_raises_type_error(scheduler: Any) -> None:
    with pytest.raises(TypeError, match=r"scheduler: expected a scheduler of torch.optim.lr_scheduler, such as StepLR"):
        LRScheduler(scheduler)


def test_lr_scheduler_invalid_stepper_raises_type_error() -> None:
    with pytest.raises(TypeError, match="stepper: expected a function of the manager and the scheduler, got"):
        LRScheduler(lr_scheduler.StepLR(make_sgd(), 1), stepper="val/loss")  # type: ignore[arg-type]


def test_lr_scheduler_plateau_of_highest_value_requires_stepper() -> None:
    scheduler = lr_scheduler.ReduceLROnPlateau(make_sgd(), mode="max")
    with pytest.raises(ValueError, match=r"stepper=LRScheduler\.step_by_value\('val/accuracy'\)"):
        LRScheduler(scheduler)
    LRScheduler(scheduler, stepper=LRScheduler.step_by_value("val/accuracy"))


@pytest.mark.parametrize("trigger", [(1, "iteration"), (1, "epoch")], ids=["iteration", "epoch"])
def test_lr_scheduler_stepped_in_loop_too_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trigger: tuple[int, str]
) -> None:
    scheduler = lr_scheduler.StepLR(make_sgd(), 1, 0.5)
    manager = make_manager(tmp_path, LRScheduler(scheduler, trigger=trigger))
    for _ in range(12):
        with manager.run_iteration(step_optimizers=["main"]):
            pass
        scheduler.step()
    assert caplog.text.count("StepLR was also stepped outside of this extension") == 1


def test_lr_scheduler_stepped_before_training_only_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = lr_scheduler.StepLR(make_sgd(), 1, 0.5)
    manager = make_manager(tmp_path, LRScheduler(scheduler))
    scheduler.optimizer.step()
    scheduler.step()
    record_rates(manager, 9)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("trigger", "total_steps", "is_longer"),
    [
        ((1, "iteration"), 400, False),
        ((1, "epoch"), 400, True),
        ((1, "epoch"), 100, False),
        ((2, "epoch"), 100, True),
        ((0.3, "epoch"), 334, False),  # 2, then 1 iteration
    ],
)
def test_lr_scheduler_with_more_steps_than_the_training_makes_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trigger: Any, total_steps: int, is_longer: bool
) -> None:
    scheduler = lr_scheduler.OneCycleLR(make_sgd(), 2.0, total_steps, cycle_momentum=False)
    record_rates(make_manager(tmp_path, LRScheduler(scheduler, trigger=trigger)), 17)
    assert caplog.text.count(f"OneCycleLR has total_steps={total_steps}, but") == is_longer


def test_lr_scheduler_with_own_stepper_does_not_warn_about_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = lr_scheduler.OneCycleLR(make_sgd(), 2.0, 400, cycle_momentum=False)

    def step_four_times(manager: Any, scheduler: Any) -> None:
        for _ in range(4):
            scheduler.step()

    record_rates(make_manager(tmp_path, LRScheduler(scheduler, stepper=step_four_times)), 9)
    assert not caplog.messages
