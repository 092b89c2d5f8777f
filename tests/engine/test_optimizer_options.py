"""Options of optimizers that a resumed script gives differently."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

import pte_tracking as pte
from pte_tracking import extensions

#: Returns an optimizer and a scheduler for a learning rate.
Setup = Callable[[nn.Module, float], tuple[optim.Optimizer, Any]]


def without_scheduler(model: nn.Module, lr: float) -> tuple[optim.Optimizer, Any]:
    return optim.SGD(model.parameters(), lr), None


def step(model: nn.Module, lr: float) -> tuple[optim.Optimizer, Any]:
    optimizer = optim.SGD(model.parameters(), lr)
    return optimizer, lr_scheduler.StepLR(optimizer, 1, 0.5)


def warm_up(model: nn.Module, lr: float) -> tuple[optim.Optimizer, Any]:
    optimizer = optim.SGD(model.parameters(), lr)
    return optimizer, lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 2, 1))


def one_cycle(model: nn.Module, lr: float) -> tuple[optim.Optimizer, Any]:
    optimizer = optim.SGD(model.parameters(), lr, momentum=0.9)
    return optimizer, lr_scheduler.OneCycleLR(optimizer, lr, total_steps=20)


class Training:
    """Sessions of a script in one directory that records the messages of each session."""

    def __init__(self, directory: Path, messages: list[str]) -> None:
        self._directory, self._messages, self._epochs = directory, messages, 0

    def run(
        self,
        setup: Setup = without_scheduler,
        lr: float = 1.0,
        *,
        late_scheduler: bool = False,
        before_resume: Callable[[optim.Optimizer], object] | None = None,
        after_resume: Callable[[optim.Optimizer], object] | None = None,
        before_update: Callable[[optim.Optimizer, int], object] | None = None,
    ) -> list[str]:
        """Train for one more epoch. Return the messages about options."""
        self._messages.clear()
        self._epochs += 1
        model = nn.Linear(1, 1)
        optimizer, scheduler = (optim.SGD(model.parameters(), lr), None) if late_scheduler else setup(model, lr)
        manager = pte.ExtensionsManager(
            model, self._epochs, [extensions.snapshot()], optimizers=optimizer, iters_per_epoch=2,
            out_dir=self._directory,
        )  # fmt: skip
        if late_scheduler:
            scheduler = lr_scheduler.OneCycleLR(optimizer, lr, total_steps=20)
        if scheduler is not None:
            manager.extend(extensions.LRScheduler(scheduler))
        if before_resume is not None:
            before_resume(optimizer)
        if not late_scheduler or self._epochs > 1:
            manager.resume()
        if after_resume is not None:
            after_resume(optimizer)
        for x in manager.batches([torch.ones(1, 1)] * 2):
            if before_update is not None:
                before_update(optimizer, manager.iteration)
            with manager.run_iteration(step_optimizers=["main"]):
                model(x).sum().backward()
        self.lr = optimizer.param_groups[0]["lr"]
        return [message for message in self._messages if "restored state of the optimizers" in message]


def set_option(option: str, value: float) -> Callable[..., object]:
    return lambda optimizer, *_: [group.update({option: value}) for group in optimizer.param_groups]


@pytest.fixture
def training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Training]:
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        messages: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("pte_tracking").addHandler(handler)
        yield Training(tmp_path, messages)
        logging.getLogger("pte_tracking").removeHandler(handler)


@pytest.mark.parametrize("setup", [without_scheduler, step, warm_up, one_cycle])
def test_resume_of_unchanged_script_reports_nothing(setup: Setup, training: Training) -> None:
    assert [training.run(setup), training.run(setup), training.run(setup)] == [[], [], []]


def test_resume_with_scheduler_created_after_manager_reports_nothing(training: Training) -> None:
    assert [training.run(late_scheduler=True), training.run(late_scheduler=True)] == [[], []]


def test_resume_of_script_that_sets_options_in_its_loop_reports_nothing(training: Training) -> None:
    def decay(optimizer: optim.Optimizer, iteration: int) -> None:
        set_option("lr", 1 / (iteration + 1))(optimizer)

    assert [training.run(before_update=decay), training.run(before_update=decay)] == [[], []]


def test_resume_with_other_rate_that_the_loop_sets_reports_nothing(training: Training) -> None:
    def decay_from(lr: float) -> Callable[[optim.Optimizer, int], object]:
        return lambda optimizer, iteration: set_option("lr", lr / (iteration + 1))(optimizer)

    training.run(before_update=decay_from(1.0))
    assert training.run(lr=0.5, before_update=decay_from(0.5)) == []
    assert training.lr == 0.125
    assert training.run(lr=0.5, before_update=decay_from(0.5)) == []


def test_resume_with_large_entry_of_a_group_logs_nothing(training: Training, caplog: pytest.LogCaptureFixture) -> None:
    def setup(model: nn.Module, lr: float) -> tuple[optim.Optimizer, Any]:
        optimizer = optim.SGD(model.parameters(), lr)
        optimizer.param_groups[0]["basis"] = torch.zeros(100, 100)
        return optimizer, None

    assert [training.run(setup), training.run(setup)] == [[], []]
    assert caplog.messages == []


@pytest.mark.parametrize("setup", [without_scheduler, step, warm_up, one_cycle])
def test_resume_with_other_learning_rate_reports_it_in_every_session(setup: Setup, training: Training) -> None:
    training.run(setup)
    for _ in range(2):
        (message,) = training.run(setup, 0.5)
        assert "lr of 'main'" in message
        assert "for group in manager.optimizers['main'].param_groups: group['lr'] = " in message
        assert ("base_lrs" in message) == (setup is not without_scheduler)
    assert training.run(setup, 1.0) == []


def test_resume_report_names_restored_first_and_given_value(training: Training) -> None:
    training.run(step, 1.0)
    (message,) = training.run(step, 0.25)
    assert "lr of 'main', group 0, is 0.5 (at first 1.0), not 0.25." in message
    assert training.lr == 0.25  # 0.5, halved by the scheduler


def test_resume_with_rate_that_was_set_during_training_reports_nothing(training: Training) -> None:
    training.run(before_update=set_option("lr", 0.5))
    assert training.run(lr=0.5) == []


def test_resume_with_override_after_resume_reports_nothing(training: Training) -> None:
    training.run()
    assert training.run(lr=0.5, after_resume=set_option("lr", 0.5)) == []
    assert training.lr == 0.5
    assert training.run(lr=0.5, after_resume=set_option("lr", 0.5)) == []
    assert training.run(lr=0.5) == []
    assert training.lr == 0.5


def test_resume_with_options_set_before_resume_reports_them(training: Training) -> None:
    training.run()
    (message,) = training.run(before_resume=set_option("weight_decay", 0.5))
    assert "weight_decay of 'main', group 0, is 0, not 0.5." in message


def test_resume_with_several_changed_options_reports_one_line(training: Training) -> None:
    def adam(**options: Any) -> Setup:
        def setup(model: nn.Module, lr: float) -> tuple[optim.Optimizer, Any]:
            assert isinstance(model, nn.Linear)
            groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
            return optim.Adam(groups, lr, **options), None

        return setup

    training.run(adam())
    (message,) = training.run(adam(betas=(0.5, 0.75), weight_decay=0.25))
    assert "betas of 'main', group 0, 1, is (0.9, 0.999), not (0.5, 0.75); " in message
    assert "weight_decay of 'main', group 0, is 0, not 0.25." in message
    assert "group['betas'] = (0.5, 0.75)" in message


def test_resume_records_given_parameter_and_used_rate(tmp_path: Path) -> None:
    for epochs, lr in ((1, 1.0), (2, 0.5)):
        model = nn.Linear(1, 1)
        manager = pte.ExtensionsManager(
            model, epochs, [extensions.observe_lr(), extensions.LogReport(), extensions.snapshot()],
            optimizers=optim.SGD(model.parameters(), lr), iters_per_epoch=2, out_dir=tmp_path, params={"lr": lr},
        )  # fmt: skip
        manager.resume()
        for x in manager.batches([torch.ones(1, 1)] * 2):
            with manager.run_iteration(step_optimizers=["main"]):
                model(x).sum().backward()
    assert [row.values["lr"] for row in manager.run.rows()] == [1.0, 1.0]
    assert '"values":{"lr":0.5}' in (tmp_path / "journal.jsonl").read_text()
