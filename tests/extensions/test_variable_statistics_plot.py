"""Tests of VariableStatisticsPlot: samples, figures, and resume."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from pte_tracking import ExtensionsManager
from pte_tracking._store.events import Figure as FigureEvent
from pte_tracking._store.journal_reader import read
from pte_tracking.extensions import VariableStatisticsPlot


def make_manager(out: Path, plot: VariableStatisticsPlot) -> ExtensionsManager:
    return ExtensionsManager({}, 5, [plot], iters_per_epoch=4, out_dir=out, sinks=[])


def train(manager: ExtensionsManager, variable: torch.Tensor, iterations: int) -> None:
    for _ in range(iterations):
        with manager.run_iteration(), torch.no_grad():
            variable.copy_(torch.linspace(0, manager.iteration + 1, variable.numel()).reshape(variable.shape))


def test_variable_statistics_plot_writes_file_and_logs_figure(tmp_path: Path) -> None:
    variable = torch.rand(1, 2, 3)
    plot = VariableStatisticsPlot(variable, trigger=(1, "iteration"), filename="spread.png")
    with make_manager(tmp_path, plot) as manager:
        train(manager, variable, 2)
    assert (tmp_path / "spread.png").read_bytes().startswith(b"\x89PNG")
    events = [event for event, _ in read(tmp_path / "journal.jsonl") if isinstance(event, FigureEvent)]
    assert [(event.key, event.step) for event in events] == [("spread", 1), ("spread", 2)]


def test_variable_statistics_plot_sample_has_moments_and_percentiles(tmp_path: Path) -> None:
    model = nn.Linear(5, 3)
    extra = torch.tensor([7.0])
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    percentiles = (0, 2.28, 50, 99.87, 100)
    plot = VariableStatisticsPlot([model, [extra]], percentile_sigmas=percentiles)
    with make_manager(tmp_path, plot) as manager, manager.run_iteration():
        pass
    data, grad = plot.state_dict()["samples"][0].numpy()
    weights = np.concatenate([parameter.detach().numpy().ravel() for parameter in model.parameters()])
    gradients = np.concatenate([parameter.grad.numpy().ravel() for parameter in model.parameters()])  # type: ignore[union-attr]
    for sample, values in (data, np.append(weights, 7.0)), (grad, gradients):
        expected = [values.mean(), values.std(ddof=1), *np.percentile(values, percentiles)]
        np.testing.assert_allclose(sample, expected, rtol=1e-5, atol=1e-6)


def test_variable_statistics_plot_scalar_has_zero_std_and_nan_gradient(tmp_path: Path) -> None:
    plot = VariableStatisticsPlot(torch.tensor(3.0), percentile_sigmas=50, trigger=(1, "iteration"))
    with make_manager(tmp_path, plot) as manager, manager.run_iteration():
        pass
    (data, grad) = plot.state_dict()["samples"][0].tolist()
    assert data == [3, 0, 3]
    assert np.isnan(grad).all()
    assert (tmp_path / "statistics.png").exists()


def test_variable_statistics_plot_samples_are_evenly_spaced(tmp_path: Path) -> None:
    variable = torch.zeros(3)
    plot = VariableStatisticsPlot(variable, max_sample_size=4)
    with make_manager(tmp_path, plot) as manager:
        train(manager, variable, 20)
    state = plot.state_dict()
    assert state["iterations"] == [1, 9, 17]
    assert state["samples"][:, 0, -1].tolist() == [1, 9, 17]


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_variable_statistics_plot_sample_count_stays_in_bounds(tmp_path: Path, size: int) -> None:
    plot = VariableStatisticsPlot(torch.zeros(1), size, percentile_sigmas=(), trigger=None)
    with make_manager(tmp_path, plot) as manager:
        for iteration in range(1, 21):
            with manager.run_iteration():
                pass
            kept = plot.state_dict()["iterations"]
            assert min(iteration, size / 2) <= len(kept) <= size
            assert len(set(np.diff(kept))) <= 1


def test_variable_statistics_plot_does_not_change_rng_state(tmp_path: Path) -> None:
    variable = torch.zeros(3)
    before = torch.get_rng_state(), repr(np.random.get_state())
    with make_manager(tmp_path, VariableStatisticsPlot(variable, max_sample_size=2)) as manager:
        train(manager, variable, 20)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]


def test_variable_statistics_plot_resumed_matches_uninterrupted_run(tmp_path: Path) -> None:
    variable = torch.zeros(5, requires_grad=True)

    def plot() -> VariableStatisticsPlot:
        return VariableStatisticsPlot(variable, max_sample_size=4)

    with make_manager(tmp_path / "whole", whole := plot()) as manager:
        train(manager, variable, 20)
    file = io.BytesIO()
    with make_manager(tmp_path / "parts", plot()) as manager:
        train(manager, variable, 7)
        torch.save(manager.state_dict(), file)
    file.seek(0)
    with make_manager(tmp_path / "resumed", resumed := plot()) as manager:
        manager.load_state_dict(torch.load(file, weights_only=True))
        train(manager, variable, 13)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0, equal_nan=True)
    assert (tmp_path / "resumed/statistics.png").read_bytes() == (tmp_path / "whole/statistics.png").read_bytes()


@pytest.mark.parametrize(
    "chosen",
    [
        {"report_grad": False},
        {"plot_mean": False},
        {"plot_std": False, "marker": "o"},
        {"percentile_sigmas": (), "grid": False},
        {"percentile_sigmas": (0, 25, 75, 100)},
        {"plot_mean": False, "plot_std": False, "percentile_sigmas": 50, "figsize": (3, 2)},
    ],
)
def test_variable_statistics_plot_every_option_is_drawn(tmp_path: Path, chosen: dict[str, Any]) -> None:
    variable = torch.zeros(4)
    with make_manager(tmp_path, VariableStatisticsPlot(variable, **chosen)) as manager:
        train(manager, variable, 4)
    assert (tmp_path / "statistics.png").read_bytes().startswith(b"\x89PNG")


def test_variable_statistics_plot_panels_are_labeled(tmp_path: Path) -> None:
    variable, figure = torch.ones(4, requires_grad=True), Figure()
    plot = VariableStatisticsPlot(variable, percentile_sigmas=(0, 25, 50, 75, 100))
    with make_manager(tmp_path, plot) as manager:
        train(manager, variable, 4)
    plot._paint(figure)
    assert [axes.get_title() for axes in figure.axes] == ["values", "gradients", "", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "iteration", "iteration"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["mean ± std", "", "percentiles", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0 to 100", "25 to 75", "50"]
    shades = [band.get_facecolor()[0][0] for band in figure.axes[2].collections]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": []}, r"targets: expected at least 1 tensor or a module with parameters, got \[\]"),
        ({"targets": nn.ReLU()}, r"targets: expected .* got ReLU\(\)"),
        ({"plot_mean": False, "plot_std": False, "percentile_sigmas": ()}, "Nothing to plot"),
        ({"report_data": False, "report_grad": False}, "Nothing to plot"),
        ({"max_sample_size": 1}, "max_sample_size: expected at least 2, got 1"),
        ({"percentile_sigmas": (50, 0)}, "percentile_sigmas: expected ascending numbers from 0 to 100"),
        ({"percentile_sigmas": (0, 101)}, "percentile_sigmas: expected ascending numbers from 0 to 100"),
    ],
)
def test_variable_statistics_plot_invalid_options_raise_value_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VariableStatisticsPlot(**{"targets": torch.zeros(1), **arguments})


def test_variable_statistics_plot_invalid_targets_raise_type_error() -> None:
    with pytest.raises(TypeError, match=r"targets: expected a tensor, a module or a list of them, got 3"):
        VariableStatisticsPlot([3])  # type: ignore[list-item]


def test_variable_statistics_plot_available_returns_true() -> None:
    assert VariableStatisticsPlot.available() is True
