"""Rows of imported runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking._runs.imported_rows import join_rows
from pte_tracking._store.events import Metrics, Text

KEYS = st.sampled_from(["a", "b", "c"])
POINTS = st.lists(st.tuples(st.integers(0, 3), KEYS, st.floats(allow_nan=False), st.floats(0, 3)), max_size=30)


def point(step: int, key: str, value: float, time: float) -> Metrics:
    return Metrics(0, time, step, {key: value})


@given(POINTS)
def test_join_rows_any_order_keeps_each_point_with_its_time(points: list[tuple[int, str, float, float]]) -> None:
    joined = [event for event in join_rows([point(*fields) for fields in points]) if isinstance(event, Metrics)]
    stored = [(event.step, key, value, event.time) for event in joined for key, value in event.points.items()]
    # Points of one row change their order, because the row itself is written last.
    assert sorted(stored) == sorted(points)
    for key in "abc":
        kept = [fields for fields in stored if fields[1] == key]
        assert kept == [fields for fields in points if fields[1] == key]


@given(POINTS)
def test_join_rows_any_order_rows_contain_each_value_once(points: list[tuple[int, str, float, float]]) -> None:
    joined = [event for event in join_rows([point(*fields) for fields in points]) if isinstance(event, Metrics)]
    rows = [(row.step, key, value) for row in joined if row.log == "log" for key, value in row.values.items()]
    assert rows == [fields[:3] for fields in points]


def test_join_rows_values_of_one_step_and_time_are_one_event() -> None:
    (row,) = join_rows([point(1, "a", 1.0, 5.0), point(1, "b", 2.0, 5.0)])
    assert row == Metrics(0, 5.0, 1, {"a": 1.0, "b": 2.0}, explicit=True)


def test_join_rows_system_metrics_between_values_are_points_of_no_row() -> None:
    values = [point(10, "a", 1.0, 5.0), point(3, "system/cpu", 50.0, 5.5), point(10, "b", 2.0, 5.0)]
    sample, row = join_rows(values)
    assert sample == Metrics(0, 5.5, 3, {"system/cpu": 50.0}, log=None, explicit=True)
    assert row == Metrics(0, 5.0, 10, {"a": 1.0, "b": 2.0}, explicit=True)


def test_join_rows_other_event_between_ends_row() -> None:
    text = Text(0, 5.0, "note", 1, "text")
    joined = list(join_rows([point(1, "a", 1.0, 5.0), text, point(1, "b", 2.0, 5.0)]))
    assert [type(event) for event in joined] == [Metrics, Text, Metrics]


def test_join_rows_metric_epoch_becomes_epoch_of_row() -> None:
    (row,) = join_rows([point(10, "loss", 1.0, 5.0), point(10, "epoch", 2.0, 5.0)])
    assert (row.values, row.epoch) == ({"loss": 1.0}, 2.0)


def test_join_rows_infinite_epoch_stays_metric() -> None:
    (row,) = join_rows([point(10, "epoch", float("inf"), 5.0)])
    assert (row.values, row.epoch) == ({"epoch": float("inf")}, None)


def test_join_rows_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a non-empty string"):
        list(join_rows([point(1, "", 1.0, 5.0)]))
