"""Tests of extensions that read parameters, with unusual parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.extensions._parameters import dense_values


class UnusualModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(4, 2, sparse=True)
        self.waves = nn.Parameter(torch.tensor([1 + 2j, 3 + 4j]))
        self.nothing = nn.Parameter(torch.zeros(0))
        self.positions = nn.Parameter(torch.tensor([1, 2, 3]), requires_grad=False)
        self.mask = nn.Parameter(torch.tensor([True, False]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.words(x).sum() + self.waves.abs().sum()


@pytest.mark.parametrize(
    "make_extension",
    [
        extensions.ParameterStatistics,
        extensions.ParameterHistogram,
        extensions.VariableStatisticsPlot,
        lambda model: extensions.FailOnNonNumber(),
        lambda model: extensions.ModelSummary(),
    ],
)
def test_parameter_extensions_accept_unusual_parameters(
    tmp_path: Path, make_extension: Callable[[nn.Module], pte.Extension]
) -> None:
    model = UnusualModel()
    manager = pte.ExtensionsManager(model, 1, [make_extension(model)], iters_per_epoch=2, out_dir=tmp_path, sinks=[])
    for _ in range(2):
        with manager.run_iteration():
            model(torch.tensor([1, 1])).backward()
    assert manager.is_ended


def test_parameter_statistics_unusual_parameters_are_measured(tmp_path: Path) -> None:
    model = UnusualModel()
    statistics = extensions.ParameterStatistics(model, {"sum": torch.sum})
    manager = pte.ExtensionsManager(model, 1, [statistics], iters_per_epoch=1, out_dir=tmp_path, sinks=[])
    with manager.run_iteration():
        model(torch.tensor([1, 1])).backward()
    observed = manager.observation
    assert observed["words.weight/grad/sum"] == 4.0
    assert observed["waves/data/sum"] == 10.0
    assert observed["positions/data/sum"] == 6.0
    assert observed["mask/data/sum"] == 1.0
    assert not [key for key in observed if key.startswith("nothing")]


def test_dense_values_dense_real_tensor_is_not_copied() -> None:
    weight = torch.ones(3)
    ((_, values),) = dense_values({"weight": weight})
    assert values is weight
