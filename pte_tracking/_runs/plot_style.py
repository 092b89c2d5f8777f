"""Common style of all plots: colors, curves, axes, and legends.

The style is set on each figure, so that ``matplotlib.rcParams`` does not change. If the user has chosen other colors in
``rcParams["axes.prop_cycle"]``, for example with a style sheet, that style is used instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pte_tracking._store.printable import escape_label

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colors of M. Okabe and K. Ito, "Color Universal Design" (2008), without yellow, which is too light on white. The line
# styles keep the curves apart in grayscale. The numbers of colors and line styles have no common factor.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_LINE_STYLES = ("-", "--", "-.", ":")
_GRID_COLOR = "#dddddd"
_MAX_MARKED_POINTS = 30  # more markers hide the curve
_LINE_CHARACTERS = 60  # a longer line of a label is wider than a figure
_MAX_COLUMNS = 6
_PADDING_INCHES = 0.1


def style_axes(axes: Axes, x_label: str, y_label: str = "", *, grid: bool = True, has_integer_x: bool = False) -> None:
    """Set the colors, the grid, and the labels of empty axes.

    Args:
        axes: Axes without curves.
        x_label: Label of the x-axis.
        y_label: Label of the y-axis. Empty for none.
        grid: Whether to draw a grid.
        has_integer_x: Whether the ticks of the x-axis are integers.
    """
    axes.set_xlabel(to_label(x_label))
    axes.set_ylabel(to_label(y_label))
    if has_integer_x:
        axes.locator_params("x", integer=True, min_n_ticks=1)
    if not _is_default_style():
        axes.grid(grid)
        return
    axes.set_prop_cycle(color=_COLORS * len(_LINE_STYLES), linestyle=_LINE_STYLES * len(_COLORS))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(False)
    if grid:
        axes.grid(True, color=_GRID_COLOR, linewidth=0.8, linestyle="-")


def draw_curve(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, marker: str | None = None) -> None:
    """Draw a curve. A value that is not finite is a gap.

    Args:
        axes: Axes to draw on.
        x: Positions on the x-axis.
        y: Values.
        label: Name of the curve.
        marker: Marker for the points of a curve with at most 30 points. None for no marker. A point without neighbors
            has a marker in any case, because no line shows it.
    """
    finite = [False, *map(math.isfinite, y), False]
    isolated = [i for i in range(len(y)) if finite[i : i + 3] == [False, True, False]]
    is_marked = marker is not None and len(y) <= _MAX_MARKED_POINTS
    marked = list(range(len(y))) if is_marked else isolated
    # A marker that no point has is not listed in the legend either.
    axes.plot(x, y, label=to_label(label), marker=(marker or ".") if marked else None, markersize=4, markevery=marked)


def add_legend(figure: Figure, axes: Iterable[Axes], title: str | None = None) -> None:
    """Add a legend below the figure.

    The legend has as many columns as fit. It is outside the canvas, and therefore requires ``bbox_inches="tight"`` when
    the figure is saved: the picture grows, and the axes keep their size.

    Args:
        figure: Figure with final axes.
        axes: Axes with the entries. An entry that occurs several times is listed once.
        title: Title of the legend. Defaults to none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    handles: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    # The size of a text depends on the renderer. Other formats have similar sizes.
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    bounds = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    options: dict[str, Any] = {
        "title": title,
        "loc": "upper center",
        "bbox_to_anchor": (0.5, (bounds.y0 - _PADDING_INCHES) / height),
        "borderaxespad": 0,
        "fontsize": "small",
        "title_fontsize": "small",
        "frameon": False,
        "columnspacing": 1.5,
        "handlelength": 3,  # long enough for the pattern of a line style
    }
    one_column = figure.legend(handles.values(), handles.keys(), **options)
    column_width = one_column.get_window_extent(renderer).width
    one_column.remove()
    columns = max(1, min(_MAX_COLUMNS, int(width * figure.dpi / column_width)))
    rows = math.ceil(len(handles) / columns)
    figure.legend(handles.values(), handles.keys(), ncols=math.ceil(len(handles) / rows), **options)


def base_color() -> str:
    """Return the color of a plot with one color."""
    return _COLORS[0] if _is_default_style() else "C0"


def mix_color(axes: Axes, share: float) -> tuple[float, ...]:
    """Return a mixture of the color of a plot with one color and the background.

    Bands of such colors look the same in the plot and in the legend, unlike transparent bands that overlap.

    Args:
        axes: Axes with the background.
        share: Share of the color, from 0 to 1.
    """
    from matplotlib.colors import to_rgb

    pairs = zip(to_rgb(base_color()), to_rgb(axes.get_facecolor()), strict=True)
    return tuple(share * color + (1 - share) * background for color, background in pairs)


def to_label(name: str) -> str:
    """Return a name as a label, with line breaks if it is long, after a slash if possible."""
    lines = [""]
    for part in re.findall(rf"[^/]{{0,{_LINE_CHARACTERS}}}/?", name):
        if lines[-1] and len(lines[-1] + part) > _LINE_CHARACTERS:
            lines.append("")
        lines[-1] += part
    return escape_label("\n".join(lines))


def _is_default_style() -> bool:
    import matplotlib

    return bool(matplotlib.rcParams["axes.prop_cycle"] == matplotlib.rcParamsDefault["axes.prop_cycle"])
