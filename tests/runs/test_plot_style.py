"""Tests of the common style of plots: colors, markers, labels, and the legend."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from pte_tracking._runs import plot_style

# Linear RGB as seen with complete protanopia, deuteranopia, and tritanopia.
# Source: G. M. Machado et al., "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009).
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65
WHITE = TO_XYZ.sum(axis=1)


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


@pytest.fixture
def restored_style() -> Iterator[None]:
    with matplotlib.rc_context():
        yield


def draw(axes: Axes, labels: Sequence[str]) -> list[Line2D]:
    plot_style.style_axes(axes, "iteration")
    for number, label in enumerate(labels):
        plot_style.draw_curve(axes, [1, 2], [number, number + 1], label)
    return list(axes.lines)


def to_lab(color: str, deficiency: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Convert a color to CIELAB, in which distances are perceived differences."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)
    ratio = TO_XYZ @ seen / WHITE
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_curve_colors_differ_with_color_vision_deficiency(axes: Axes, deficiency: str) -> None:
    colors = list(dict.fromkeys(str(line.get_color()) for line in draw(axes, [str(i) for i in range(28)])))
    pairs = itertools.combinations(colors, 2)
    distances = [float(np.linalg.norm(to_lab(a, deficiency) - to_lab(b, deficiency))) for a, b in pairs]
    assert len(colors) == 7
    assert min(distances) > 10  # a difference of 2.3 is just noticeable


def test_curves_differ_in_grayscale_by_line_style(axes: Axes) -> None:
    lines = draw(axes, [str(i) for i in range(28)])
    assert [line.get_linestyle() for line in lines[:4]] == ["-", "--", "-.", ":"]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 28


@pytest.mark.parametrize(
    ("marker", "count", "marked"), [("o", 30, list(range(30))), ("o", 31, []), (None, 2, []), (None, 1, [0])]
)
def test_draw_curve_marks_few_points_and_single_points(
    axes: Axes, marker: str | None, count: int, marked: list[int]
) -> None:
    plot_style.draw_curve(axes, list(range(count)), list(range(count)), "loss", marker)
    (line,) = axes.lines
    assert line.get_markevery() == marked
    assert line.get_marker() == ((marker or ".") if marked else "None")


def test_draw_curve_marks_points_between_gaps(axes: Axes) -> None:
    values = [1.0, math.nan, 2.0, math.inf, 3.0, 4.0, -math.inf]
    plot_style.draw_curve(axes, range(7), values, "loss")
    (line,) = axes.lines
    assert line.get_markevery() == [0, 2]
    assert axes.get_ylim()[1] < 5


@pytest.mark.parametrize("labels", [["train/loss", "val/loss"], [f"val/class_{i}/accuracy" for i in range(20)]])
def test_add_legend_is_in_the_picture_below_the_axes(axes: Axes, labels: list[str]) -> None:
    draw(axes, labels)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    plot_style.add_legend(figure, [axes])
    (legend,) = figure.legends
    canvas = figure.canvas
    renderer = canvas.get_renderer()  # type: ignore[attr-defined]
    extent, bounds = legend.get_window_extent(renderer), axes.get_tightbbox(renderer)
    assert bounds is not None
    assert [text.get_text() for text in legend.get_texts()] == labels
    assert extent.y1 < bounds.y0
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.width
    picture = io.BytesIO()
    figure.savefig(picture, bbox_inches="tight")
    with Image.open(picture) as image:
        assert image.height > bounds.y1 - extent.y0
        assert image.width <= figure.bbox.width


def test_add_legend_long_labels_are_wrapped_and_complete(axes: Axes) -> None:
    key = "validation/" + "/".join(f"group_{i}" for i in range(20)) + "/$_" + "x" * 100
    draw(axes, [key, "loss"])
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    plot_style.add_legend(figure, [axes])
    text = figure.legends[0].get_texts()[0].get_text()
    assert max(map(len, text.split("\n"))) <= 62
    assert text.replace("\n", "").replace(r"\$", "$") == key
    assert figure.legends[0].get_window_extent().width < figure.bbox.width


def test_add_legend_entry_of_several_panels_is_listed_once() -> None:
    figure = Figure()
    panels = list(figure.subplots(1, 2))
    for panel in panels:
        draw(panel, ["first", "second"])
    plot_style.add_legend(figure, panels, "runs")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]
    assert figure.legends[0].get_title().get_text() == "runs"


def test_style_axes_ticks_of_iterations_are_integers(axes: Axes) -> None:
    plot_style.style_axes(axes, "epoch", "loss", has_integer_x=True)
    plot_style.draw_curve(axes, [1, 2, 3], [1, 2, 3], "loss")
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")


def test_style_axes_does_not_change_settings_of_matplotlib(axes: Axes) -> None:
    before = dict(matplotlib.rcParams)
    draw(axes, ["loss"])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.usefixtures("restored_style")
def test_style_axes_keeps_the_style_of_the_user() -> None:
    matplotlib.style.use("ggplot")
    figure = Figure()
    first, second = draw(figure.add_subplot(), ["first", "second"])
    assert [first.get_color(), second.get_color()] == ["#E24A33", "#348ABD"]
    assert [first.get_linestyle(), second.get_linestyle()] == ["-", "-"]
    assert plot_style.base_color() == "C0"


def test_mix_color_bands_become_darker_towards_the_color(axes: Axes) -> None:
    assert plot_style.mix_color(axes, 0) == (1, 1, 1)
    assert plot_style.mix_color(axes, 1) == pytest.approx(to_rgb(plot_style.base_color()))
