"""Plot of the metrics of several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pte_tracking._cli.rendering import fail
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.metrics import read_metrics
from pte_tracking._store.printable import escape_label

_MAX_PANELS = 30
_COLUMNS = 3
_PANEL_SIZE = (4.5, 3.2)  # inches
_LETTER_WIDTH, _LINE_HEIGHT, _HANDLE_WIDTH = 0.085, 0.22, 0.7  # inches in the legend
_LINE_STYLES = ("-", "--", ":", "-.")


def plot_comparison(path: Path, runs: Mapping[str, Path], keys: Sequence[str]) -> None:
    """Write a figure with one panel per metric and one curve per run.

    Args:
        path: File to write. The suffix selects the format.
        runs: Run directories by label.
        keys: Keys of the metrics.
    """
    try:
        with required_by("--plot", "matplotlib", "'pte-tracking[plot]'"):
            from matplotlib import style
            from matplotlib.figure import Figure
    except ImportError as error:
        fail(str(error), 1)
    if not keys:
        fail("--plot: the runs have no metrics", 1)
    if len(keys) > _MAX_PANELS:
        fail(f"--plot: expected at most {_MAX_PANELS} metrics, got {len(keys)}. Select some with --metric.", 2)
    columns = min(len(keys), _COLUMNS)
    rows = math.ceil(len(keys) / columns)
    width = columns * _PANEL_SIZE[0]
    label_width = _HANDLE_WIDTH + _LETTER_WIDTH * max(map(len, runs))
    legend_columns = max(min(int(width / label_width), len(runs)), 1)
    legend_height = _LINE_HEIGHT * math.ceil(len(runs) / legend_columns)
    figure = Figure(figsize=(width, rows * _PANEL_SIZE[1] + legend_height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for key, panel in zip(keys, panels, strict=False):
        panel.set(title=escape_label(key), xlabel="iteration")
        panel.grid(alpha=0.3)
    for panel in list(panels)[len(keys) :]:
        panel.remove()
    # Ten colors that are also distinct for color-blind readers.
    colors = style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]
    for index, (label, directory) in enumerate(runs.items()):
        curves = _read_curves(directory, keys)
        repeats, color_index = divmod(index, len(colors))
        line_style = _LINE_STYLES[repeats % len(_LINE_STYLES)]
        for number, key in enumerate(keys):
            steps, values = curves[key]
            # Each run keeps its color in panels of metrics that it does not have.
            figure.axes[number].plot(
                steps,
                values,
                color=colors[color_index],
                linestyle=line_style,
                label=escape_label(label),
                marker="." if len(steps) < 2 else None,
            )
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=legend_columns)
    suffixes = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in suffixes:
        fail(f"--plot: expected a file with one of the suffixes .{', .'.join(sorted(suffixes))}, got {str(path)!r}", 2)
    figure.savefig(path, dpi=150)


def _read_curves(directory: Path, keys: Sequence[str]) -> dict[str, tuple[list[int], list[float]]]:
    curves: dict[str, tuple[list[int], list[float]]] = {key: ([], []) for key in keys}
    for event in read_metrics(directory):
        points = event.points
        for key in curves.keys() & points.keys():
            curves[key][0].append(event.step)
            curves[key][1].append(points[key])  # type: ignore[arg-type]  # decoded as numbers
    return curves
