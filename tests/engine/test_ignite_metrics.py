"""Ignite's metrics in a training that is resumed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Accuracy, Average, EpochMetric, RunningAverage
from torch import nn
from torch.utils.data import DataLoader

import pte_tracking as pte
from pte_tracking import extensions

DATA: Any = list(range(12))


class StoppedError(BaseException):
    """Ends a training in the middle of an iteration."""


def train(out_dir: Path, every: Any, stop: int | None = None, *, with_unsaved: bool = False) -> list[Any]:
    """Run a training with metrics of an epoch and of the whole run, and return their values after each iteration."""
    torch.manual_seed(0)

    def step(engine: Engine, batch: Any) -> Any:
        if manager.iteration == stop:
            raise StoppedError
        return batch.float()

    engine, seen = Engine(step), []
    engine.logger.disabled = True
    manager = pte.IgniteExtensionsManager(
        engine, nn.Linear(1, 1), 3, [extensions.snapshot(trigger=every)], out_dir=out_dir, sinks=[]
    )
    first = (lambda output: output[0].item(),)
    average = Average(*first)
    RunningAverage(average).attach(engine, "average")
    RunningAverage(output_transform=lambda output: output.mean().item()).attach(engine, "output")
    total = Average(*first)
    total.attach(engine, "total")
    Accuracy(lambda output: (output.long() % 2, (output.long() // 2) % 2)).attach(engine, "accuracy")
    if with_unsaved:
        EpochMetric(lambda x, y: 0.0, lambda output: (output, output), check_compute_fn=False).attach(engine, "unsaved")

    @engine.on(Events.ITERATION_COMPLETED)
    def record(engine: Engine) -> None:
        seen.append((total.compute(), engine.state.metrics["output"], engine.state.metrics["average"]))

    @engine.on(Events.EPOCH_COMPLETED)
    def record_epoch(engine: Engine) -> None:
        seen.append(engine.state.metrics["accuracy"])

    manager.resume()
    with contextlib.suppress(StoppedError):
        engine.run(DataLoader(DATA, 3, shuffle=True), max_epochs=3)
    return seen


@pytest.mark.parametrize("every", [(1, "iteration"), (1, "epoch")], ids=["iteration", "epoch"])
@pytest.mark.parametrize("stop", [6, 8, 9])
def test_metrics_resumed_continue_exactly(
    tmp_path: Path, every: Any, stop: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(tmp_path / "whole", every)
    train(tmp_path / "run", every, stop)
    resumed = train(tmp_path / "run", every)
    assert resumed == whole[-len(resumed) :]
    assert len(resumed) < len(whole)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_metric_without_a_state_resumed_within_an_epoch_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, (1, "iteration"), 6, with_unsaved=True)
    train(tmp_path, (1, "iteration"), with_unsaved=True)
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith("The state of the Ignite metrics 'unsaved' is not in the snapshot.")


def test_metric_without_a_state_resumed_at_the_end_of_an_epoch_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, (1, "epoch"), 6, with_unsaved=True)
    train(tmp_path, (1, "epoch"), with_unsaved=True)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
