"""Tests of the warning about averages of weights that no snapshot contains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import pte_tracking as pte
from pte_tracking import extensions


class Average(pte.Extension):
    """Extension with the average as its state."""

    trigger = (1, "iteration")

    def __init__(self, average: AveragedModel) -> None:
        self.average = average

    def __call__(self, manager: Any) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()


def train(out: Path, model: nn.Module, average: AveragedModel | None, *more: pte.Extension, **arguments: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = pte.ExtensionsManager(
        **({"models": model} | arguments),
        max_iterations=3,
        extensions=[extensions.snapshot(trigger=(1, "iteration")), *more],
        optimizers=optimizer,
        out_dir=out,
        sinks=[],
    )
    for _ in manager.iterations():
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)


def test_average_outside_snapshot_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(2, 1)
    average = AveragedModel(model)
    train(tmp_path, model, average)
    assert caplog.text.count("an AveragedModel, which the training updates, is not part of the snapshot") == 1


@pytest.mark.parametrize("place", ["models", "state_objects", "extension"])
def test_average_in_snapshot_does_not_warn(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(2, 1)
    average = AveragedModel(model)
    more: list[pte.Extension] = []
    arguments: dict[str, Any] = {}
    if place == "models":
        arguments = {"models": {"main": model, "average": average}}
    elif place == "state_objects":
        arguments = {"state_objects": {"average": average}}
    else:
        more = [Average(average)]
    train(tmp_path, model, average, *more, **arguments)
    assert not caplog.messages


def test_average_of_another_training_or_without_updates_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = nn.Linear(3, 1)
    averages = [AveragedModel(other), AveragedModel(nn.Linear(2, 1))]
    averages[0].update_parameters(other)
    train(tmp_path, nn.Linear(2, 1), None)
    assert not caplog.messages
