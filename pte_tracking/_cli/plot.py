"""Plot of curves in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.text import Text

#: Bits of the dots in a Braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
COLORS = ("cyan", "magenta", "yellow", "green", "blue", "red")


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
    for curve, color in zip(curves, itertools.cycle(COLORS), strict=False):
        dots = [(round((x - left) / x_span * right), round((top - y) / y_span * bottom)) for x, y in curve]
        for (x0, y0), (x1, y1) in itertools.pairwise([dots[0], *dots]):
            length = max(abs(x1 - x0), abs(y1 - y0), 1)
            for n in range(length + 1):
                x, y = x0 + (x1 - x0) * n // length, y0 + (y1 - y0) * n // length
                rows[y // 4][x // 2] = rows[y // 4][x // 2][0] | _DOTS[y % 4][x % 2], color
    return [Text.assemble(*((chr(0x2800 + bits) if bits else " ", color) for bits, color in row)) for row in rows]
