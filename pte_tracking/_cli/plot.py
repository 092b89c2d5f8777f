"""Plot of metrics in the terminal."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pte_tracking._store.metric_names import primary_metric
from pte_tracking._store.metrics import RunMetrics, read_points
from pte_tracking._store.printable import escape_line

_MAX_POINTS = 500
_FRAME = "┌─┐│└┘"
_BRAILLE = 0x2800  # the character without dots
#: Bits of the dots in a Braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
#: Colors of the theme of the terminal that are readable on a light and on a dark background, the clearest first.
COLORS = ("magenta", "cyan", "red", "blue", "green")


def print_plot(console: Console, directory: Path, metrics: RunMetrics, height: int) -> None:
    """Plot the primary metric together with metrics of the same name, such as the training loss.

    Without colors, which tell the curves apart, only the primary metric is plotted. Nothing is printed if the output
    cannot encode the characters.

    Args:
        console: Console to print to.
        directory: Run directory.
        metrics: Metrics of the run.
        height: Height of the curves in lines.
    """
    primary = primary_metric(key for key, summary in metrics.summaries.items() if summary.lowest is not None)
    if primary is None or not _can_print_plots(console):
        return
    curves = _read_curves(directory, primary, has_colors=console.color_system is not None and not console.no_color)
    values = [value for curve in curves.values() for _, value in curve]
    if len(curves[primary]) < 2 or not math.isfinite(max(values) - min(values)):
        return
    thinned = [_thin(curve) for curve in curves.values()]
    steps = [step for curve in thinned for step, _ in curve]
    width = max(min(console.width, 100) - 20, 20)
    limits = {0: f" {max(values):.4g}", height - 1: f" {min(values):.4g}"}
    console.print()
    console.print(f"┌{'─' * width}┐")
    for number, line in enumerate(draw_curves(thinned, width, height)):
        console.print(Text.assemble("│", line, "│", limits.get(number, "")), soft_wrap=True)
    console.print(f"└{'─' * width}┘")
    first, last = str(min(steps)), str(max(steps))
    console.print(f" {first}{'step':^{max(width - len(first) - len(last), 6)}}{last}")
    for key, color in zip(curves, itertools.cycle(COLORS), strict=False):
        console.print(Text.assemble(" ", ("──", color), f" {escape_line(key)}"), soft_wrap=True)


def _can_print_plots(console: Console) -> bool:
    try:
        f"{_FRAME}{chr(_BRAILLE)}".encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _read_curves(directory: Path, primary: str, *, has_colors: bool) -> dict[str, list[tuple[int, float]]]:
    """Read the curves to plot, the primary one first.

    Other metrics are not kept in memory, because a run may have a million rows of a hundred metrics.
    """
    last_name = primary.rpartition("/")[2]
    curves: dict[str, list[tuple[int, float]]] = {primary: []}
    for event, points in read_points(directory):
        for key, value in points.items():
            is_plotted = key == primary or (has_colors and key.rpartition("/")[2] == last_name)
            if is_plotted and math.isfinite(value):  # type: ignore[arg-type]  # decoded as numbers
                curves.setdefault(key, []).append((event.step, value))  # type: ignore[arg-type]
    return curves


def draw_curves(curves: Sequence[Sequence[tuple[int, float]]], width: int, height: int) -> list[Text]:
    """Draw curves as lines of Braille characters, which have 2 by 4 dots.

    Args:
        curves: Steps and finite values of each curve.
        width: Width of the plot in characters.
        height: Height of the plot in characters.
    """
    steps, values = zip(*itertools.chain.from_iterable(curves), strict=True)
    left, top = min(steps), max(values)
    x_span, y_span = max(steps) - left or 1, top - min(values) or 1
    right, bottom = 2 * width - 1, 4 * height - 1  # dots
    rows = [[(0, "")] * width for _ in range(height)]
    # Where curves overlap, a character has the color of the first one.
    for curve, color in reversed(list(zip(curves, itertools.cycle(COLORS), strict=False))):
        dots = [(round((x - left) / x_span * right), round((top - y) / y_span * bottom)) for x, y in curve]
        for (x0, y0), (x1, y1) in itertools.pairwise([dots[0], *dots]):
            length = max(abs(x1 - x0), abs(y1 - y0), 1)
            for n in range(length + 1):
                x, y = x0 + (x1 - x0) * n // length, y0 + (y1 - y0) * n // length
                rows[y // 4][x // 2] = rows[y // 4][x // 2][0] | _DOTS[y % 4][x % 2], color
    return [Text.assemble(*((chr(_BRAILLE + bits) if bits else " ", color) for bits, color in row)) for row in rows]


def _thin(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Reduce a curve to its ends and the minimum and maximum of equal segments, so that peaks stay visible."""
    if len(curve) <= _MAX_POINTS:
        return curve
    size = -(-2 * len(curve) // _MAX_POINTS)
    pieces = [curve[start : start + size] for start in range(0, len(curve), size)]
    extremes = [
        sorted({min(piece, key=operator.itemgetter(1)), max(piece, key=operator.itemgetter(1))}) for piece in pieces
    ]
    return [curve[0], *itertools.chain.from_iterable(extremes), curve[-1]]
