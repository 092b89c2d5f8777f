"""A line of any number of points, kept in bounded memory as a plot shows it."""

from __future__ import annotations

import math
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor

Point: TypeAlias = tuple[float, float]


class CurveState(TypedDict):
    """A curve's state; every ``Tensor`` holds points as rows of x and y in double precision."""

    count: int
    width: int
    points: Tensor
    open: Tensor


class Curve:
    """Points in the order in which they came: all of them at first, later the lowest and the highest of every bucket.

    A picture has fewer columns of pixels than a long curve has points, and a column shows only its lowest and
    highest point. So whenever the room is used up, two neighbouring buckets become one of twice the width.
    What is kept depends on nothing but the points, an outlier is never lost, and a point costs the same
    however many came before it.

    Args:
        capacity: Most points that are kept; a multiple of four.

    Attributes:
        count: How many points were added.
    """

    def __init__(self, capacity: int = 2048) -> None:
        self._capacity = capacity
        self.count = 0
        self._width = 2  # points that a bucket stands for; it is kept as two, so the first buckets lose nothing
        self._points: list[Point] = []
        self._bucket: list[Point] = []  # the lowest and the highest of the bucket that is being filled

    def add(self, x: float, y: float) -> None:
        """Goes on to a point; one whose y is not finite is a gap in the line."""
        self.count += 1
        if self._width == 2:
            self._points.append((x, y))
        else:
            self._update_bucket((x, y))
            if self.count % self._width == 0:
                self._points += self._bucket
                self._bucket = []
        if len(self._points) == self._capacity:
            groups = [self._points[i : i + 4] for i in range(0, self._capacity, 4)]
            self._points = [point for group in groups for point in _lowest_and_highest(group)]
            self._width *= 2

    def points(self) -> list[Point]:
        """What is left to draw."""
        return self._points + self._bucket

    def state_dict(self) -> CurveState:
        return {
            "count": self.count,
            "width": self._width,
            "points": _to_tensor(self._points),
            "open": _to_tensor(self._bucket),
        }

    def load_state_dict(self, state: CurveState) -> None:
        self.count, self._width = state["count"], state["width"]
        self._points = [(x, y) for x, y in state["points"].tolist()]
        self._bucket = [(x, y) for x, y in state["open"].tolist()]

    def _update_bucket(self, point: Point) -> None:
        if self._bucket:
            (_, first), (_, second) = self._bucket
            if first < point[1] < second or second < point[1] < first:
                return
        self._bucket = _lowest_and_highest([*self._bucket, point])


def _lowest_and_highest(points: list[Point]) -> list[Point]:
    """The lowest and the highest point, in their order; twice the same if there is only one that can be drawn."""
    drawable = [i for i, (_, y) in enumerate(points) if math.isfinite(y)] or [0]
    low = min(drawable, key=lambda i: points[i][1])
    # Of equals the last, so that a level line keeps both of its ends.
    high = max(reversed(drawable), key=lambda i: points[i][1])
    return [points[min(low, high)], points[max(low, high)]]


def _to_tensor(points: list[Point]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)
