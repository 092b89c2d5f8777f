"""Tests of curves in bounded memory."""

from __future__ import annotations

import io
import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking.extensions._curve import Curve, Point


def make_curve(values: list[float], capacity: int = 8) -> Curve:
    curve = Curve(capacity)
    for x, y in enumerate(values):
        curve.add(x, y)
    return curve


def get_finite_values(points: list[Point]) -> list[float]:
    return [y for _, y in points if math.isfinite(y)]


def test_curve_under_capacity_keeps_every_point() -> None:
    values = [3.0, math.nan, 1.0, math.inf, 2.0]
    points = make_curve(values).points()
    assert [x for x, _ in points] == [0, 1, 2, 3, 4]
    assert [repr(y) for _, y in points] == [repr(y) for y in values]


@given(st.lists(st.floats(width=32), max_size=200))
def test_curve_size_is_bounded_and_keeps_extremes_and_order(values: list[float]) -> None:
    points = make_curve(values).points()
    assert len(points) < 8 + 2
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert all(repr(values[int(x)]) == repr(y) for x, y in points)
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        assert min(get_finite_values(points)) == min(finite)
        assert max(get_finite_values(points)) == max(finite)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=100), st.data())
def test_curve_restored_from_state_matches_uninterrupted_curve(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    file = io.BytesIO()
    torch.save(make_curve(values[:cut]).state_dict(), file)
    file.seek(0)
    resumed = Curve(8)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for x, y in list(enumerate(values))[cut:]:
        resumed.add(x, y)
    assert resumed.points() == make_curve(values).points()
    assert resumed.count == len(values)


def test_curve_constant_values_keep_endpoints() -> None:
    points = make_curve([1.0] * 64).points()
    assert points[0] == (0, 1.0)
    assert points[-1] == (63, 1.0)


def test_curve_decreasing_x_keeps_order() -> None:
    curve = Curve(8)
    for i in range(64):
        curve.add(-i, i)
    assert [x for x, _ in curve.points()] == sorted((x for x, _ in curve.points()), reverse=True)


def test_curve_long_curve_state_size_is_bounded() -> None:
    def saved_bytes(length: int) -> int:
        file = io.BytesIO()
        torch.save(make_curve([float(i) for i in range(length)], capacity=64).state_dict(), file)
        return file.tell()

    assert saved_bytes(20_000) < saved_bytes(63) + 400
