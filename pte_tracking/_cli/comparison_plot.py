"""Plot of the metrics of several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pte_tracking._cli.rendering import fail
from pte_tracking._runs import plot_style
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.metrics import read_points

_MAX_PANELS = 30
_COLUMNS = 3
_PANEL_SIZE = (4.5, 3.2)  # inches


def plot_comparison(path: Path, runs: Mapping[str, Path], keys: Sequence[str]) -> None:
    """Write a figure with one panel per metric and one curve per run.

    Args:
        path: File to write. The suffix selects the format.
        runs: Run directories by label.
        keys: Keys of the metrics.
    """
    try:
        with required_by("--plot", "matplotlib", "'pte-tracking[plot]'"):
            from matplotlib.figure import Figure
    except ImportError as error:
        fail(str(error), 1)
    if not keys:
        fail("--plot: the runs have no metrics", 1)
    if len(keys) > _MAX_PANELS:
        fail(f"--plot: expected at most {_MAX_PANELS} metrics, got {len(keys)}. Select some with --metric.", 2)
    columns = min(len(keys), _COLUMNS)
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(columns * _PANEL_SIZE[0], rows * _PANEL_SIZE[1]))
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for panel in panels[len(keys) :]:
        panel.remove()
    for key, panel in zip(keys, panels, strict=False):
        plot_style.style_axes(panel, "iteration", has_integer_x=True)
        panel.set_title(plot_style.to_label(key), fontsize="medium")
        panel.tick_params(labelbottom=True)  # Only the lowest panels of a shared axis have labels by default.
    for label, directory in runs.items():
        curves = _read_curves(directory, keys)
        for key, panel in zip(keys, panels, strict=False):
            # Each run keeps its color and line style in panels of metrics that it does not have.
            plot_style.draw_curve(panel, *curves[key], label)
    figure.tight_layout()
    plot_style.add_legend(figure, figure.axes)
    suffixes = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in suffixes:
        fail(f"--plot: expected a file with one of the suffixes .{', .'.join(sorted(suffixes))}, got {str(path)!r}", 2)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _read_curves(directory: Path, keys: Sequence[str]) -> dict[str, tuple[list[int], list[float]]]:
    curves: dict[str, tuple[list[int], list[float]]] = {key: ([], []) for key in keys}
    for event, points in read_points(directory):
        for key in curves.keys() & points.keys():
            curves[key][0].append(event.step)
            curves[key][1].append(points[key])  # type: ignore[arg-type]  # decoded as numbers
    return curves
