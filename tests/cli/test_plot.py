"""Tests of the plot in the output of the command show."""

from __future__ import annotations

import pytest
from rich.text import Text

from pte_tracking._cli.plot import COLORS, draw_curves


def draw(curves: list[list[tuple[int, float]]], width: int = 3, height: int = 2) -> list[str]:
    return [line.plain for line in draw_curves(curves, width, height)]


def colors(line: Text) -> list[str]:
    return [str(span.style) for span in line.spans if span.style]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([(1, 0.0), (6, 7.0)], [" ⡠⠊", "⡔⠁ "]),
        ([(1, 7.0), (6, 0.0)], ["⠣⡀ ", " ⠑⢄"]),
        ([(1, 5.0), (6, 5.0)], ["⠉⠉⠉", "   "]),
        ([(1, 1.0), (1, 2.0)], ["⡇  ", "⡇  "]),
        ([(1, -1e300), (6, 1e-300)], [" ⡠⠊", "⡔⠁ "]),
        ([(1, 0.0), (6, 5e-324)], [" ⡠⠊", "⡔⠁ "]),
    ],
    ids=["rising", "falling", "constant", "vertical", "wide", "narrow"],
)
def test_draw_curves_connects_points(curve: list[tuple[int, float]], expected: list[str]) -> None:
    assert draw([curve]) == expected


def test_draw_curves_single_point_is_one_dot() -> None:
    assert draw([[(1, 0.0), (6, 7.0)], [(1, 7.0)]])[0][0] == "⠁"


def test_draw_curves_colors_each_curve() -> None:
    top, bottom = draw_curves([[(1, 1.0), (9, 1.0)], [(1, 0.0), (9, 0.0)]], 3, 2)
    assert set(colors(top)) == {COLORS[0]}
    assert set(colors(bottom)) == {COLORS[1]}


def test_draw_curves_more_curves_than_colors_repeats_colors() -> None:
    lines = draw_curves([[(1, float(-number)), (9, float(-number))] for number in range(6)], 3, 6)
    assert colors(lines[0])[0] == colors(lines[-1])[0] == COLORS[0]


def test_draw_curves_overlap_has_color_of_first_curve() -> None:
    curve = [(1, 0.0), (9, 0.0)]
    assert set(colors(draw_curves([curve, curve], 3, 1)[0])) == {COLORS[0]}
