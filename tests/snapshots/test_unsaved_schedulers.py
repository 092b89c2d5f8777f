"""Tests of the warning about schedulers that no snapshot contains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import pte_tracking as pte
from pte_tracking import extensions

Make = Callable[[torch.optim.Optimizer], Any]


def make_sequential(optimizer: torch.optim.Optimizer) -> Any:
    parts = [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return lr_scheduler.SequentialLR(optimizer, parts, [5])


def make_chained(optimizer: torch.optim.Optimizer) -> Any:
    return lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(optimizer), lr_scheduler.StepLR(optimizer, 3)])


def make_plateau(optimizer: torch.optim.Optimizer) -> Any:
    return lr_scheduler.ReduceLROnPlateau(optimizer)


class Wrapper:
    """Object with a state that contains a scheduler, as those of Accelerate and Ignite do."""

    def __init__(self, scheduler: Any) -> None:
        self.parts = [SimpleNamespace(scheduler=scheduler)]

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.parts[0].scheduler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parts[0].scheduler.load_state_dict(state)


class Stepping(pte.Extension):
    """Extension of a user that steps a scheduler, and has no state."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def __call__(self, manager: Any) -> None:
        self.scheduler.step()


def train(
    out: Path,
    optimizer: torch.optim.Optimizer,
    extra: tuple[Any, ...] = (),
    *,
    has_snapshot: bool = True,
    **kwargs: Any,
) -> None:
    saved = [extensions.snapshot()] if has_snapshot else []
    manager = pte.ExtensionsManager(
        {}, 2, [*extra, *saved], optimizers=optimizer, iters_per_epoch=2, out_dir=out, sinks=[], **kwargs
    )
    for _ in manager.iterations():
        optimizer.step()


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda optimizer: lr_scheduler.StepLR(optimizer, 1), "StepLR"),
        (make_sequential, "SequentialLR"),
        (make_chained, "ChainedScheduler"),
        (make_plateau, "ReduceLROnPlateau"),
    ],
    ids=["step", "sequential", "chained", "plateau"],
)
def test_scheduler_outside_snapshot_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make, name: str
) -> None:
    optimizer = make_optimizer()
    scheduler = make(optimizer)
    train(tmp_path, optimizer)
    assert scheduler is not None
    assert caplog.text.count(f"the learning rate scheduler of an optimizer ({name}) is not part of the snapshot") == 1


def test_scheduler_of_extension_without_state_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    optimizer = make_optimizer()
    train(tmp_path, optimizer, (Stepping(lr_scheduler.StepLR(optimizer, 1)),))
    assert "(StepLR) is not part of the snapshot" in caplog.text


@pytest.mark.parametrize(
    "make", [make_sequential, make_chained, make_plateau], ids=["sequential", "chained", "plateau"]
)
@pytest.mark.parametrize("wrap", [lambda scheduler: scheduler, Wrapper], ids=["itself", "wrapped"])
def test_scheduler_in_state_objects_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make, wrap: Callable[[Any], Any]
) -> None:
    optimizer = make_optimizer()
    train(tmp_path, optimizer, state_objects={"scheduler": wrap(make(optimizer))})
    assert not caplog.messages


def test_scheduler_in_extension_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    optimizer = make_optimizer()
    train(tmp_path, optimizer, (extensions.LRScheduler(make_sequential(optimizer)),))
    assert not caplog.messages


def test_scheduler_without_snapshots_or_of_other_optimizer_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer, other = make_optimizer(), make_optimizer()
    schedulers = [lr_scheduler.StepLR(item, 1) for item in (optimizer, other)]
    train(tmp_path / "none", optimizer, has_snapshot=False)
    del schedulers[0]
    train(tmp_path / "other", optimizer)
    assert not caplog.messages
