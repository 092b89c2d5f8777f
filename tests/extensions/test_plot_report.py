"""Curves of reported values: their points, their pictures, and their way through a snapshot."""

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
from pte_tracking._store.journal import read
from pte_tracking.extensions import PlotReport


def manager_of(out: Path, plot: PlotReport, **kwargs: Any) -> ExtensionsManager:
    return ExtensionsManager({}, 3, [plot], iters_per_epoch=4, out_dir=out, sinks=[], **kwargs)


def train(manager: ExtensionsManager, iterations: int) -> None:
    for _ in range(iterations):
        with manager.run_iteration():
            done = manager.iteration + 1
            pte.report({"loss": 1 / done, "gain": done, "late": done} if done > 4 else {"loss": 1 / done, "gain": done})


def points_of(plot: PlotReport, key: str) -> list[list[float]]:
    points: list[list[float]] = plot.state_dict()["curves"][key]["points"].tolist()
    return points


def figures(out: Path) -> list[tuple[str, int]]:
    return [(event.key, event.step) for event, _ in read(out / "journal.jsonl") if isinstance(event, FigureEvent)]


def test_a_point_is_the_mean_of_its_interval(tmp_path: Path) -> None:
    plot = PlotReport(["loss", "late"])
    with manager_of(tmp_path, plot) as manager:
        train(manager, 12)
    assert points_of(plot, "loss")[0] == [4, pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)]
    assert [x for x, _ in points_of(plot, "loss")] == [4, 8, 12]
    assert points_of(plot, "late") == [[8, 6.5], [12, 10.5]]


def test_each_new_point_replaces_the_file_and_gives_the_run_a_figure(tmp_path: Path) -> None:
    with manager_of(tmp_path, PlotReport("loss")) as manager:
        train(manager, 4)
        first = (tmp_path / "plot.png").read_bytes()
        train(manager, 8)
    assert first.startswith(b"\x89PNG")
    assert (tmp_path / "plot.png").read_bytes() != first
    assert figures(tmp_path) == [("plot", 4), ("plot", 8), ("plot", 12)]
    assert [path.name for path in tmp_path.glob(".*.tmp")] == []


@pytest.mark.parametrize(
    ("x_key", "xs"), [("iteration", [2, 4]), ("epoch", [0, 1]), ("epoch_detail", [0.5, 1]), ("gain", [1.5, 3.5])]
)
def test_it_may_be_plotted_over_anything(tmp_path: Path, x_key: str, xs: list[float]) -> None:
    plot = PlotReport("loss", x_key, (2, "iteration"), filename="over.png")
    with manager_of(tmp_path, plot) as manager:
        train(manager, 4)
    assert [x for x, _ in points_of(plot, "loss")] == xs


def test_postprocess_sees_the_figure_its_axes_and_the_newest_means(tmp_path: Path) -> None:
    seen: list[tuple[Figure, Axes, dict[str, float]]] = []
    plot = PlotReport("gain", postprocess=lambda *given: seen.append((given[0], given[1], given[2].compute_mean())))
    with manager_of(tmp_path, plot) as manager:
        train(manager, 8)
    assert [means for _, _, means in seen] == [{"gain": 2.5}, {"gain": 6.5}]
    figure, axes, _ = seen[0]
    assert figure.axes == [axes]
    assert axes.get_xlabel() == "iteration"
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [[2.5]]


def test_a_key_that_never_came_is_one_warning_at_the_end(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, PlotReport(["loss", "los", "valid/loss"]))
    train(manager, 8)
    with pytest.warns(UserWarning, match=r"as 'los', 'valid/loss' with its x 'iteration'; .* 'loss'") as told:
        manager.close()
    assert len(told) == 1


def test_nothing_to_plot_leaves_no_file(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, PlotReport("nothing"))
    train(manager, 8)
    with pytest.warns(UserWarning, match="'nothing'"):
        manager.close()
    assert not (tmp_path / "plot.png").exists()
    assert figures(tmp_path) == []


def test_a_training_that_ends_before_the_first_point_warns_of_nothing(tmp_path: Path) -> None:
    with manager_of(tmp_path, PlotReport("nothing")) as manager:
        train(manager, 2)


def test_called_before_training_it_begins_at_zero(tmp_path: Path) -> None:
    plot = PlotReport("loss")
    manager = ExtensionsManager({}, 3, iters_per_epoch=4, out_dir=tmp_path, sinks=[])
    manager.extend(lambda _: pte.report({"loss": 2.0}), "first", (9, "epoch"), 300, call_before_training=True)
    manager.extend(plot, call_before_training=True)
    train(manager, 4)
    manager.close()
    assert points_of(plot, "loss")[0] == [0, 2.0]


def test_gaps_and_odd_keys_are_drawn(tmp_path: Path) -> None:
    keys = ["a$b", "_under", "train/loss", "größe"]
    with manager_of(tmp_path, PlotReport(keys, trigger=(1, "iteration"), marker=None, grid=False)) as manager:
        for value in (1.0, math.nan, math.inf, -math.inf, 2.0):
            with manager.run_iteration():
                pte.report(dict.fromkeys(keys, value))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_plot_is_that_of_an_uninterrupted_training(tmp_path: Path) -> None:
    def plot() -> PlotReport:
        return PlotReport(["loss", "late"], trigger=(3, "iteration"))

    with manager_of(tmp_path / "whole", whole := plot()) as manager:
        train(manager, 12)
    file = io.BytesIO()
    with manager_of(tmp_path / "parts", plot()) as manager:
        train(manager, 5)
        torch.save(manager.state_dict(), file)
    file.seek(0)
    with manager_of(tmp_path / "resumed", resumed := plot()) as manager:
        manager.load_state_dict(torch.load(file, weights_only=True))
        train(manager, 7)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert (tmp_path / "resumed/plot.png").read_bytes() == (tmp_path / "whole/plot.png").read_bytes()
    assert figures(tmp_path / "resumed") == figures(tmp_path / "whole")[1:]


def test_the_last_points_are_drawn_at_the_end(tmp_path: Path) -> None:
    plot = PlotReport("loss", trigger=(1, "iteration"))
    with manager_of(tmp_path, plot) as manager:
        train(manager, 1)
        plot.load_state_dict({**plot.state_dict(), "picture": {"offered": 500, "drawn": 500}})
        train(manager, 2)
        assert figures(tmp_path) == [("plot", 1)]
    assert figures(tmp_path) == [("plot", 1), ("plot", 3)]


@pytest.mark.parametrize("y_keys", [[], [1], ["loss", None]])
def test_keys_must_be_given(y_keys: Any) -> None:
    with pytest.raises(ValueError, match=r"y_keys: expected keys of reported values, such as \['train/loss'\], got"):
        PlotReport(y_keys)


def test_available_tells_whether_it_can_be_used() -> None:
    assert PlotReport.available() is True


def test_pyplot_is_never_touched(tmp_path: Path) -> None:
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
