"""Curve of any number of points in bounded memory."""

from __future__ import annotations

import math
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor

Point: TypeAlias = tuple[float, float]


class CurveState(TypedDict):
    """State of a curve. Tensors contain one row of x and y per point in double precision, shape (points, 2)."""

    count: int
    width: int
    points: Tensor
    open: Tensor


class Curve:
    """Curve that keeps all points up to its capacity, and then the lowest and highest point of each bucket.

    A figure has fewer pixel columns than a long curve has points, and each column shows only the lowest and the highest
    point in it. When the capacity is reached, pairs of adjacent buckets are merged, which doubles the bucket width. The
    kept points depend only on the added points. Outliers are never lost. The amortized cost of adding a point is
    constant.

    Args:
        capacity: Maximum number of stored points, a multiple of 4. Defaults to 2048.

    Attributes:
        count: Number of added points.
    """

    def __init__(self, capacity: int = 2048) -> None:
        self._capacity = capacity
        self.count = 0
        # Points per bucket. A bucket is stored as two points, so that buckets of this width are lossless.
        self._width = 2
        self._points: list[Point] = []
        self._bucket: list[Point] = []  # The lowest and highest point of the incomplete bucket.

    def add(self, x: float, y: float) -> None:
        """Append a point. A point whose y is not finite is a gap in the curve."""
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
        """Return the points to draw, in the order in which they were added."""
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
    """Return the lowest and the highest point in their original order. They are the same if one is finite."""
    drawable = [i for i, (_, y) in enumerate(points) if math.isfinite(y)] or [0]
    low = min(drawable, key=lambda i: points[i][1])
    # Among equal points the last one, so that a horizontal line keeps both ends.
    high = max(reversed(drawable), key=lambda i: points[i][1])
    return [points[min(low, high)], points[max(low, high)]]


def _to_tensor(points: list[Point]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)
