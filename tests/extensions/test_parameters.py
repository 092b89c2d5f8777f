"""Tests of extensions that read parameters, with unusual parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.extensions._parameters import dense_values
from tests.extensions.weight_readers import WEIGHT_READERS


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
    [*WEIGHT_READERS, lambda model: extensions.FailOnNonNumber(), lambda model: extensions.ModelSummary()],
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


def test_list_of_extensions_that_read_weights_is_complete() -> None:
    folder = Path(extensions.__file__).parent
    readers = {path.stem for path in folder.glob("[a-z]*.py") if re.search(r"\bdense_values\b", path.read_text())}
    assert {reader.__module__.rpartition(".")[2] for reader in WEIGHT_READERS} == readers


@pytest.mark.parametrize("value", [3, None, [3]])
def test_parameter_statistics_of_anything_but_modules_raises_type_error(value: Any) -> None:
    for kind in (extensions.ParameterStatistics, extensions.ParameterHistogram):
        with pytest.raises(TypeError, match=r"links: expected a torch\.nn\.Module or several, got (3|None)"):
            kind(value)


@pytest.mark.parametrize("reader", WEIGHT_READERS)
@pytest.mark.parametrize("case", ["before backward", "after step", "frozen", "not requested"])
def test_gradients_removed_before_extensions_run_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: Callable[..., pte.Extension], case: str
) -> None:
    model = nn.Linear(1, 1).requires_grad_(case != "frozen")
    grads = "report_grad" if reader is extensions.VariableStatisticsPlot else "report_grads"
    entry = pte.ExtensionEntry(
        reader(model, **{grads: case != "not requested"}), trigger=(1, "iteration"), call_before_training=True
    )
    manager = pte.ExtensionsManager(model, 1, [entry], iters_per_epoch=3, out_dir=tmp_path, sinks=[])
    for x in manager.iterations([torch.ones(1, 1)] * 3):
        if case == "before backward":
            model.zero_grad()
        if case != "frozen":
            model(x).sum().backward()
        if case != "before backward":
            model.zero_grad()
    name = getattr(reader, "__name__", "")
    expected = [f"{name}: no parameter has a gradient at the end of iteration 1, when extensions run"]
    assert [message.split(", so")[0] for message in caplog.messages] == (expected if case == "after step" else [])
