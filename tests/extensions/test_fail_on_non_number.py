"""Tests of FailOnNonNumber."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking.extensions import FailOnNonNumber


def make_manager(out: Path, models: dict[str, nn.Module], check_grad: bool = True) -> pte.ExtensionsManager:
    extensions = [FailOnNonNumber(check_grad=check_grad)]
    return pte.ExtensionsManager(models, 9, extensions, iters_per_epoch=2, out_dir=out, sinks=[])


def make_linear() -> nn.Linear:
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    return layer


def iterate(manager: pte.ExtensionsManager) -> None:
    with manager.run_iteration():
        pass


def test_fail_on_non_number_finite_parameters_pass(tmp_path: Path) -> None:
    models = {"main": make_linear(), "empty": nn.ReLU(), "fresh": nn.Linear(2, 2), "whole": nn.Linear(1, 1).half()}
    iterate(make_manager(tmp_path, models))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_fail_on_non_number_non_finite_weight_raises_runtime_error(tmp_path: Path, value: float) -> None:
    models = {"encoder": make_linear(), "decoder": nn.Sequential(make_linear(), make_linear())}
    manager = make_manager(tmp_path, models)
    iterate(manager)
    with torch.no_grad():
        models["decoder"][1].weight[1, 0] = value
    with pytest.raises(
        RuntimeError, match=r"diverged at iteration 2. NaN or infinite values in: decoder/1.weight/data$"
    ):
        iterate(manager)


def test_fail_on_non_number_check_grad_controls_gradient_check(tmp_path: Path) -> None:
    layer = make_linear()
    assert layer.bias.grad is not None
    layer.bias.grad[0] = math.nan
    with pytest.raises(RuntimeError, match=r"in: main/bias/grad$"):
        iterate(make_manager(tmp_path / "a", {"main": layer}))
    iterate(make_manager(tmp_path / "b", {"main": layer}, check_grad=False))


def test_fail_on_non_number_sparse_gradients_are_checked(tmp_path: Path) -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1, 1])).sum().backward()
    iterate(make_manager(tmp_path / "a", {"main": embedding}))
    embedding.zero_grad()
    (embedding(torch.tensor([1, 1])) * math.inf).sum().backward()
    with pytest.raises(RuntimeError, match="main/weight/grad"):
        iterate(make_manager(tmp_path / "b", {"main": embedding}))


def test_fail_on_non_number_long_parameter_list_is_truncated(tmp_path: Path) -> None:
    layers = nn.Sequential(*(nn.Linear(1, 1) for _ in range(8)))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(RuntimeError, match=r"main/0.weight/data, .*, main/4.bias/data and 6 more$"):
        iterate(make_manager(tmp_path, {"main": layers}))


def test_fail_on_non_number_diverged_model_is_not_saved(tmp_path: Path) -> None:
    snapshots = []
    layer = make_linear()
    with torch.no_grad():
        layer.weight.fill_(math.nan)
    manager = make_manager(tmp_path, {"main": layer})
    manager.extend(lambda _: snapshots.append(1), "snapshot", (1, "iteration"), pte.PRIORITY_SNAPSHOT)
    with pytest.raises(RuntimeError, match="diverged"):
        iterate(manager)
    assert snapshots == []
