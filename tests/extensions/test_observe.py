"""Tests of observe_value and observe_lr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking.extensions import LogReport, observe_lr, observe_value


def make_manager(out: Path, *extensions: Any, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, 100, extensions, iters_per_epoch=2, out_dir=out, sinks=[], **options)


def train(manager: pte.ExtensionsManager, iterations: int) -> list[dict[str, Any]]:
    seen = []
    for _ in range(iterations):
        with manager.run_iteration():
            pass
        seen.append(dict(manager.observation))
    return seen


def make_adam(*rates: Any) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def test_observe_value_default_trigger_reports_at_epoch_end(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, observe_value("done", lambda manager: torch.tensor(manager.iteration)))
    assert train(manager, 4) == [{}, {"done": 2}, {}, {"done": 4}]


def test_observe_value_custom_trigger_reports_when_fired(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.extend(observe_value("done", lambda manager: manager.iteration), trigger=(1, "iteration"))
    assert train(manager, 2) == [{"done": 1}, {"done": 2}]


def test_observe_lr_learning_rate_is_logged(tmp_path: Path) -> None:
    log = LogReport()
    train(make_manager(tmp_path, log, observe_lr(), optimizers=make_adam(0.25)), 2)
    assert log.log[0]["lr"] == 0.25


@pytest.mark.parametrize("rate", [0.5, torch.tensor(0.5)])
def test_observe_lr_reports_selected_optimizer_and_group(tmp_path: Path, rate: Any) -> None:
    other = make_adam(torch.tensor(1.0), rate) if isinstance(rate, torch.Tensor) else make_adam(1.0, rate)
    extensions = [observe_lr("other", 1, "by_name"), observe_lr(other, -1, "by_object"), observe_lr()]
    manager = make_manager(tmp_path, *extensions, optimizers={"main": make_adam(0.1), "other": other})
    assert train(manager, 2)[-1] == {"by_name": 0.5, "by_object": 0.5, "lr": 0.1}


def test_observe_extensions_have_unique_default_names(tmp_path: Path) -> None:
    first, second, third = observe_lr(), observe_lr(observation_key="lr2"), observe_value("one", lambda _: 1)
    make_manager(tmp_path, first, second, third, optimizers=make_adam(0.1))
    assert [first.name, second.name, third.name] == ["observe_lr", "observe_lr_1", "observe_value"]


def test_observe_lr_missing_optimizer_raises_at_registration(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"observe_lr: unknown optimizer 'generator'. Optimizers of the manager: 'main'"
    ):
        make_manager(tmp_path, observe_lr("generator"), optimizers=make_adam(0.1))


def test_observe_lr_missing_param_group_raises_at_registration(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"observe_lr: unknown parameter group 2 of Adam. Number of parameter groups: 2"
    ):
        make_manager(tmp_path, observe_lr(param_group=2), optimizers=make_adam(0.1, 0.2))


def test_observe_functions_invalid_arguments_raise_errors() -> None:
    with pytest.raises(TypeError, match="optimizer_name: expected an optimizer or the name of an optimizer"):
        observe_lr(0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"target_func: expected a function that takes the manager, got 0.1"):
        observe_value("lr", 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="observation_key:"):
        observe_value("", lambda _: 1)
