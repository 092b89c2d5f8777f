"""Tests of ParameterStatistics: keys, interval means, and resume."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pte_tracking import ExtensionsManager
from pte_tracking.extensions import ParameterStatistics


def observe(out: Path, statistics: ParameterStatistics, iterations: int = 4) -> Mapping[str, Any]:
    """Return the observation of the last iteration. An epoch has 4 iterations."""
    with ExtensionsManager({}, 9, [statistics], iters_per_epoch=4, out_dir=out, sinks=[]) as manager:
        for _ in range(iterations):
            with manager.run_iteration():
                pass
        return manager.observation


def make_linear() -> nn.Linear:
    model = nn.Linear(3, 2)
    model(torch.ones(3)).sum().backward()
    return model


def test_parameter_statistics_defaults_cover_weights_and_gradients(tmp_path: Path) -> None:
    model = make_linear()
    observed = observe(tmp_path, ParameterStatistics(model))
    weights = model.weight.detach().double().numpy()
    assert observed["weight/data/mean"] == pytest.approx(weights.mean())
    assert observed["weight/data/std"] == pytest.approx(weights.std(ddof=1))
    assert observed["weight/data/min"] == weights.min()
    assert observed["weight/data/max"] == weights.max()
    assert observed["weight/data/zeros"] == 0
    assert observed["bias/grad/mean"] == 1
    assert len(observed) == 20


@pytest.mark.parametrize(("params", "grads", "expected"), [(True, True, 4), (False, True, 2), (True, False, 2)])
@pytest.mark.parametrize("prefix", [None, "test"])
def test_parameter_statistics_selected_kinds_use_prefixed_keys(
    tmp_path: Path, params: bool, grads: bool, expected: int, prefix: str | None
) -> None:
    observed = observe(tmp_path, ParameterStatistics(make_linear(), {"least": torch.min}, params, grads, prefix))
    start = f"{prefix}/" if prefix else ""
    kinds = [*["data"] * params, *["grad"] * grads]
    assert set(observed) == {f"{start}{name}/{kind}/least" for name in ("weight", "bias") for kind in kinds}
    assert len(observed) == expected


def test_parameter_statistics_empty_selection_reports_no_metrics(tmp_path: Path) -> None:
    assert observe(tmp_path / "a", ParameterStatistics(make_linear(), report_params=False, report_grads=False)) == {}
    assert observe(tmp_path / "b", ParameterStatistics(make_linear(), None)) == {}


def test_register_statistics_adds_statistic(tmp_path: Path) -> None:
    statistics = ParameterStatistics(make_linear(), None, report_grads=False)
    statistics.register_statistics("one", lambda values: 1.0)
    assert observe(tmp_path, statistics) == {"weight/data/one": 1.0, "bias/data/one": 1.0}


@pytest.mark.parametrize(
    "several",
    [
        lambda values: torch.stack([values.min(), values.max()]),
        lambda values: [values.min(), values.max()],
        lambda values: np.percentile(values.numpy(), (0, 100)),
    ],
)
def test_parameter_statistics_sequence_result_gets_indexed_keys(tmp_path: Path, several: Any) -> None:
    model = make_linear()
    observed = observe(tmp_path, ParameterStatistics(model, {"range": several}, report_grads=False))
    assert observed["bias/data/range/0"] == model.bias.min().item()
    assert observed["bias/data/range/1"] == model.bias.max().item()
    assert len(observed) == 4


@pytest.mark.parametrize("one", [lambda values: 3, lambda values: np.float32(3), lambda values: torch.tensor([3.0])])
def test_parameter_statistics_single_number_keeps_key(tmp_path: Path, one: Any) -> None:
    observed = observe(tmp_path, ParameterStatistics(make_linear(), {"one": one}, report_grads=False))
    assert observed == {"weight/data/one": 3, "bias/data/one": 3}


def test_parameter_statistics_functions_receive_flat_detached_tensors(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def record(values: Tensor) -> float:
        seen.append((values.ndim, values.requires_grad))
        return 0.0

    observe(tmp_path, ParameterStatistics(make_linear(), {"record": record}))
    assert set(seen) == {(1, False)}


def test_parameter_statistics_inner_trigger_reports_interval_mean(tmp_path: Path) -> None:
    calls = iter(range(1, 100))
    model = nn.Linear(1, 1, bias=False)
    statistics = ParameterStatistics(model, {"count": lambda values: next(calls)}, trigger=(2, "iteration"))
    assert observe(tmp_path / "a", statistics, 1) == {}
    # The mean of 1, 2, and 3: the first manager ended in the middle of an interval.
    assert observe(tmp_path / "b", statistics, 2) == {"weight/data/count": 2}
    assert observe(tmp_path / "c", statistics, 4) == {"weight/data/count": 6.5}


def test_parameter_statistics_given_trigger_ends_the_interval(tmp_path: Path) -> None:
    model, found = make_linear(), []
    statistics = ParameterStatistics(model, {"first": lambda flat: flat[0]}, report_grads=False, prefix="")
    manager = ExtensionsManager({}, 1, iters_per_epoch=8, out_dir=tmp_path, sinks=[])
    manager.extend(statistics, trigger=(2, "iteration"))
    for number in range(1, 5):
        with manager.run_iteration(), torch.no_grad():
            model.bias.fill_(number)
        found.append([value for key, value in manager.observation.items() if "bias" in key])
    assert found == [[], [1.5], [], [3.5]]


def test_parameter_statistics_missing_gradient_is_omitted(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    model.bias.grad = torch.zeros(2)
    observed = observe(tmp_path, ParameterStatistics(model, {"zeros": lambda values: (values == 0).sum()}))
    assert set(observed) == {"weight/data/zeros", "bias/data/zeros", "bias/grad/zeros"}


def test_parameter_statistics_single_value_has_zero_std(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    assert observe(tmp_path, ParameterStatistics(model))["weight/data/std"] == 0


def test_parameter_statistics_skip_nan_params_skips_function(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    sizes: list[int] = []

    def ends(values: Tensor) -> Tensor:
        sizes.append(values.numel())
        return values[[0, -1]]

    observed = observe(tmp_path, ParameterStatistics(model, {"ends": ends}, skip_nan_params=True))
    assert math.isnan(observed["weight/data/ends"])
    assert "weight/data/ends/0" not in observed
    assert observed["bias/data/ends/0"] == model.bias[0].item()
    assert set(sizes) == {2}


def test_parameter_statistics_nan_parameter_reports_nan_mean(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, math.nan)
    assert math.isnan(observe(tmp_path, ParameterStatistics(model))["weight/data/mean"])


def test_parameter_statistics_late_parameter_is_reported(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    statistics = ParameterStatistics(model, {"one": lambda values: 1})
    model.late = nn.Parameter(torch.zeros(1))
    assert "late/data/one" in observe(tmp_path, statistics)


def test_parameter_statistics_multiple_models_are_all_reported(tmp_path: Path) -> None:
    models = nn.Linear(1, 1, bias=False), nn.Sequential(nn.Linear(1, 1, bias=False))
    observed = observe(tmp_path, ParameterStatistics(models, {"one": lambda values: 1}))
    assert set(observed) == {"weight/data/one", "0.weight/data/one"}


def test_parameter_statistics_colliding_names_raise_value_error() -> None:
    with pytest.raises(ValueError, match=r"links: several modules .* 'weight', 'bias'. Use one extension per module"):
        ParameterStatistics([nn.Linear(1, 1), nn.Linear(1, 1)])


def test_parameter_statistics_non_module_raises_type_error() -> None:
    with pytest.raises(TypeError, match=r"links: expected a torch.nn.Module or several, got 'main' of type str"):
        ParameterStatistics(["main"])  # type: ignore[list-item]


def test_parameter_statistics_non_function_raises_type_error() -> None:
    with pytest.raises(
        TypeError, match=r"statistics: expected a function of a one-dimensional tensor as 'mean', got 'mean'"
    ):
        ParameterStatistics(nn.Linear(1, 1), {"mean": "mean"})  # type: ignore[dict-item]


def test_parameter_statistics_resumed_matches_uninterrupted_run(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)

    def train(manager: ExtensionsManager, until: int) -> None:
        for iteration in range(manager.iteration, until):
            with manager.run_iteration(), torch.no_grad():
                model.weight.fill_(0.1 * iteration)

    def make_manager(name: str) -> ExtensionsManager:
        statistics = ParameterStatistics(model, trigger=(3, "iteration"))
        return ExtensionsManager({}, 9, [statistics], iters_per_epoch=4, out_dir=tmp_path / name, sinks=[])

    with make_manager("whole") as whole:
        train(whole, 6)
    file = io.BytesIO()
    with make_manager("parts") as manager:
        train(manager, 5)
        torch.save(manager.state_dict(), file)
    file.seek(0)
    with make_manager("resumed") as resumed:
        resumed.load_state_dict(torch.load(file, weights_only=True))
        train(resumed, 6)
    assert resumed.observation == whole.observation
    assert whole.observation["weight/data/mean"] == pytest.approx(0.4)
