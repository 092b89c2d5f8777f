"""Tests of PlotReport: data points, figures, and resume."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import pte_tracking as pte
from pte_tracking import ExtensionsManager
from pte_tracking._store.events import Figure as FigureEvent
from pte_tracking._store.journal_reader import read
from pte_tracking.extensions import PlotReport


def make_manager(out: Path, plot: PlotReport, **kwargs: Any) -> ExtensionsManager:
    return ExtensionsManager({}, 3, [plot], iters_per_epoch=4, out_dir=out, sinks=[], **kwargs)


def train(manager: ExtensionsManager, iterations: int) -> None:
    for _ in range(iterations):
        with manager.run_iteration():
            done = manager.iteration + 1
            pte.report({"loss": 1 / done, "gain": done, "late": done} if done > 4 else {"loss": 1 / done, "gain": done})


def get_points(plot: PlotReport, key: str) -> list[list[float]]:
    points: list[list[float]] = plot.state_dict()["curves"][key]["points"].tolist()
    return points


def read_figures(out: Path) -> list[tuple[str, int]]:
    return [(event.key, event.step) for event, _ in read(out / "journal.jsonl") if isinstance(event, FigureEvent)]


def test_plot_report_point_is_interval_mean(tmp_path: Path) -> None:
    plot = PlotReport(["loss", "late"])
    with make_manager(tmp_path, plot) as manager:
        train(manager, 12)
    assert get_points(plot, "loss")[0] == [4, pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)]
    assert [x for x, _ in get_points(plot, "loss")] == [4, 8, 12]
    assert get_points(plot, "late") == [[8, 6.5], [12, 10.5]]


def test_plot_report_new_point_replaces_file_and_logs_figure(tmp_path: Path) -> None:
    with make_manager(tmp_path, PlotReport("loss")) as manager:
        train(manager, 4)
        first = (tmp_path / "plot.png").read_bytes()
        train(manager, 8)
    assert first.startswith(b"\x89PNG")
    assert (tmp_path / "plot.png").read_bytes() != first
    assert read_figures(tmp_path) == [("plot", 4), ("plot", 8), ("plot", 12)]
    assert [path.name for path in tmp_path.glob(".*.tmp")] == []


@pytest.mark.parametrize(
    ("x_key", "xs"), [("iteration", [2, 4]), ("epoch", [0, 1]), ("epoch_detail", [0.5, 1]), ("gain", [1.5, 3.5])]
)
def test_plot_report_x_key_selects_x_values(tmp_path: Path, x_key: str, xs: list[float]) -> None:
    plot = PlotReport("loss", x_key, (2, "iteration"), filename="over.png")
    with make_manager(tmp_path, plot) as manager:
        train(manager, 4)
    assert [x for x, _ in get_points(plot, "loss")] == xs


def test_plot_report_postprocess_receives_figure_axes_and_means(tmp_path: Path) -> None:
    seen: list[tuple[Figure, Axes, dict[str, float]]] = []
    plot = PlotReport("gain", postprocess=lambda *args: seen.append((args[0], args[1], args[2].compute_mean())))
    with make_manager(tmp_path, plot) as manager:
        train(manager, 8)
    assert [means for _, _, means in seen] == [{"gain": 2.5}, {"gain": 6.5}]
    figure, axes, _ = seen[0]
    assert figure.axes == [axes]
    assert axes.get_xlabel() == "iteration"
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [[2.5]]


@pytest.mark.parametrize(
    ("y_keys", "x_key", "labels", "entries"),
    [
        ("gain", "iteration", ("iteration", "gain"), 0),
        (["part/gain", "whole/gain"], "epoch_detail", ("epoch", "gain"), 2),
        (["gain", "loss"], "elapsed_time", ("elapsed time (seconds)", ""), 2),
        (["gain", "lost"], "loss", ("loss", ""), 0),
    ],
)
def test_plot_report_axes_are_labeled_and_several_curves_have_a_legend(
    tmp_path: Path, y_keys: list[str] | str, x_key: str, labels: tuple[str, str], entries: int
) -> None:
    figure = Figure()
    plot = PlotReport(y_keys, x_key)
    with make_manager(tmp_path, plot) as manager:
        for value in range(4):
            with manager.run_iteration():
                pte.report(dict.fromkeys(("gain", "loss", "part/gain", "whole/gain"), value))
    plot._paint(figure)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == labels
    assert sum(len(legend.get_texts()) for legend in figure.legends) == entries


def test_plot_report_legend_of_postprocess_is_kept(tmp_path: Path) -> None:
    figure = Figure()
    plot = PlotReport(["gain", "loss"], postprocess=lambda _, axes, means: axes.legend(title="mine"))
    with make_manager(tmp_path, plot) as manager:
        train(manager, 4)
    plot._paint(figure)
    assert figure.legends == []
    assert figure.axes[0].get_legend().get_title().get_text() == "mine"


def test_plot_report_unreported_keys_warn_once_at_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make_manager(tmp_path, PlotReport(["loss", "los", "valid/loss"]))
    train(manager, 8)
    manager.close()
    (message,) = (message for message in caplog.messages if "PlotReport" in message)
    assert message.startswith("PlotReport: no data points for 'los', 'valid/loss' over 'iteration'. Reported keys: 'l")


def test_plot_report_unreported_x_key_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make_manager(tmp_path, PlotReport("loss", "epcoh"))
    train(manager, 8)
    manager.close()
    assert "PlotReport: no data points for 'loss' over 'epcoh'. Reported keys: " in caplog.text


def test_plot_report_unreported_key_leaves_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make_manager(tmp_path, PlotReport("nothing"))
    train(manager, 8)
    manager.close()
    assert "'nothing'" in caplog.text
    assert not (tmp_path / "plot.png").exists()
    assert read_figures(tmp_path) == []


def test_plot_report_run_ending_before_first_point_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with make_manager(tmp_path, PlotReport("nothing")) as manager:
        train(manager, 2)
    assert "PlotReport" not in caplog.text


def test_plot_report_call_before_training_starts_at_zero(tmp_path: Path) -> None:
    plot = PlotReport("loss")
    manager = ExtensionsManager({}, 3, iters_per_epoch=4, out_dir=tmp_path, sinks=[])
    manager.extend(lambda _: pte.report({"loss": 2.0}), "first", (9, "epoch"), 300, call_before_training=True)
    manager.extend(plot, call_before_training=True)
    train(manager, 4)
    manager.close()
    assert get_points(plot, "loss")[0] == [0, 2.0]


def test_plot_report_non_finite_values_and_odd_keys_are_drawn(tmp_path: Path) -> None:
    keys = ["a$b", "_under", "train/loss", "größe"]
    with make_manager(tmp_path, PlotReport(keys, trigger=(1, "iteration"), marker=None, grid=False)) as manager:
        for value in (1.0, math.nan, math.inf, -math.inf, 2.0):
            with manager.run_iteration():
                pte.report(dict.fromkeys(keys, value))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_plot_report_resumed_matches_uninterrupted_run(tmp_path: Path) -> None:
    def plot() -> PlotReport:
        return PlotReport(["loss", "late"], trigger=(3, "iteration"))

    with make_manager(tmp_path / "whole", whole := plot()) as manager:
        train(manager, 12)
    file = io.BytesIO()
    with make_manager(tmp_path / "parts", plot()) as manager:
        train(manager, 5)
        torch.save(manager.state_dict(), file)
    file.seek(0)
    with make_manager(tmp_path / "resumed", resumed := plot()) as manager:
        manager.load_state_dict(torch.load(file, weights_only=True))
        train(manager, 7)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert (tmp_path / "resumed/plot.png").read_bytes() == (tmp_path / "whole/plot.png").read_bytes()
    assert read_figures(tmp_path / "resumed") == read_figures(tmp_path / "whole")


def test_plot_report_close_draws_last_points(tmp_path: Path) -> None:
    plot = PlotReport("loss", trigger=(1, "iteration"))
    with make_manager(tmp_path, plot) as manager:
        train(manager, 1)
        plot.load_state_dict({**plot.state_dict(), "picture": {"offered": 500, "drawn": 500}})
        train(manager, 2)
        assert read_figures(tmp_path) == [("plot", 1)]
    assert read_figures(tmp_path) == [("plot", 1), ("plot", 3)]


@pytest.mark.parametrize("y_keys", [[], [1], ["loss", None]])
def test_plot_report_invalid_y_keys_raise_value_error(y_keys: Any) -> None:
    with pytest.raises(ValueError, match=r"y_keys: expected metric keys, such as \['train/loss'\], got"):
        PlotReport(y_keys)


def test_plot_report_available_returns_true() -> None:
    assert PlotReport.available() is True


def test_plot_report_does_not_import_pyplot(tmp_path: Path) -> None:
    program = f"""
import sys
import pte_tracking as pte
from pte_tracking import extensions
plot = extensions.PlotReport("loss", trigger=(1, "iteration"))
with pte.ExtensionsManager({{}}, 1, [plot], iters_per_epoch=1, out_dir={str(tmp_path)!r}, sinks=[]) as manager:
    with manager.run_iteration():
        pte.report({{"loss": 1.0}})
print("matplotlib.figure" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


def test_plot_report_incomplete_interval_is_the_last_point(tmp_path: Path) -> None:
    plot = PlotReport("gain")
    with make_manager(tmp_path, plot) as manager:
        train(manager, 6)
    assert get_points(plot, "gain") == [[4, 2.5], [6, 5.5]]
    assert read_figures(tmp_path) == [("plot", 4), ("plot", 6)]


def test_plot_report_run_shorter_than_the_interval_is_drawn(tmp_path: Path) -> None:
    with make_manager(tmp_path, PlotReport("gain")) as manager:
        train(manager, 2)
    assert read_figures(tmp_path) == [("plot", 2)]
