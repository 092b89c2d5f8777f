"""Values that are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking.extensions import LogReport, observe_lr, observe_value


def manager_of(out: Path, *extensions: Any, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, 100, extensions, iters_per_epoch=2, out_dir=out, sinks=[], **options)


def train(manager: pte.ExtensionsManager, iterations: int) -> list[dict[str, Any]]:
    seen = []
    for _ in range(iterations):
        with manager.run_iteration():
            pass
        seen.append(dict(manager.observation))
    return seen


def adam(*rates: Any) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def test_a_value_is_reported_at_the_end_of_each_epoch(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, observe_value("done", lambda manager: torch.tensor(manager.iteration)))
    assert train(manager, 4) == [{}, {"done": 2}, {}, {"done": 4}]


def test_or_when_the_trigger_says(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    manager.extend(observe_value("done", lambda manager: manager.iteration), trigger=(1, "iteration"))
    assert train(manager, 2) == [{"done": 1}, {"done": 2}]


def test_the_learning_rate_reaches_the_log(tmp_path: Path) -> None:
    log = LogReport()
    train(manager_of(tmp_path, log, observe_lr(), optimizers=adam(0.25)), 2)
    assert log.log[0]["lr"] == 0.25


@pytest.mark.parametrize("rate", [0.5, torch.tensor(0.5)])
def test_any_group_of_any_optimizer_is_observed(tmp_path: Path, rate: Any) -> None:
    other = adam(torch.tensor(1.0), rate) if isinstance(rate, torch.Tensor) else adam(1.0, rate)
    extensions = [observe_lr("other", 1, "by_name"), observe_lr(other, -1, "by_object"), observe_lr()]
    manager = manager_of(tmp_path, *extensions, optimizers={"main": adam(0.1), "other": other})
    assert train(manager, 2)[-1] == {"by_name": 0.5, "by_object": 0.5, "lr": 0.1}


def test_they_have_names(tmp_path: Path) -> None:
    first, second, third = observe_lr(), observe_lr(observation_key="lr2"), observe_value("one", lambda _: 1)
    manager_of(tmp_path, first, second, third, optimizers=adam(0.1))
    assert [first.name, second.name, third.name] == ["observe_lr", "observe_lr_1", "observe_value"]


def test_an_optimizer_that_is_missing_is_told_when_the_extension_is_registered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="observe_lr: no optimizer is called 'generator'; the manager has 'main'"):
        manager_of(tmp_path, observe_lr("generator"), optimizers=adam(0.1))


def test_a_group_that_is_missing_is_told_when_the_extension_is_registered(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="observe_lr: Adam has 2 parameter groups, and no 2"):
        manager_of(tmp_path, observe_lr(param_group=2), optimizers=adam(0.1, 0.2))


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="optimizer_name: expected the name of an optimizer of the manager, or an opt"):
        observe_lr(0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"target_func: expected a function that takes the manager, got 0.1"):
        observe_value("lr", 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="observation_key: an empty string cannot name anything"):
        observe_value("", lambda _: 1)
