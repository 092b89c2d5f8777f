"""Tests of the columns and the number format of log tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking.extensions._columns import Columns, format_number


@given(st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(7, 12))
def test_format_number_float_fits_width_and_keeps_magnitude(value: float, max_width: int) -> None:
    text = format_number(value, max_width)
    assert len(text) <= max_width
    assert math.isnan(value) or float(text) == pytest.approx(value, rel=0.6)


def test_format_number_integer_keeps_all_digits() -> None:
    assert format_number(12_345_678) == "12345678"


@given(
    st.dictionaries(st.sampled_from(["epoch", "train/loss", "a_very_long_name"]), st.floats() | st.integers(0, 10**9))
)
def test_columns_cells_align_with_header(row: dict[str, float]) -> None:
    columns = Columns(["epoch", "train/loss", "a_very_long_name"], "epoch")
    header, line = columns.format_header(), columns.format_row(row)
    ends = [header.index(key) + max(10, len(key)) for key in columns.keys]
    for key, end in zip(columns.keys, ends, strict=True):
        cell = line[header.index(key) : end].strip()
        assert cell == (format_number(row[key], max(10, len(key))) if key in row else "")


def test_columns_header_matches_chainer() -> None:
    assert Columns(["epoch", "elapsed_time"], "epoch").format_header() == "epoch       elapsed_time"


def test_columns_detected_keys_put_unit_first_and_time_last() -> None:
    row = ["loss", "epoch", "iteration", "elapsed_time", "accuracy"]
    for unit in ("epoch", "iteration"):
        columns = Columns(None, unit)
        assert columns.add_keys(row)
        assert columns.keys == [unit, "loss", "accuracy", "elapsed_time"]
        assert not columns.add_keys(row)


def test_columns_missing_epoch_puts_iteration_first() -> None:
    columns = Columns(None, "epoch")
    assert columns.add_keys(["loss", "iteration"])
    assert columns.keys == ["iteration", "loss"]


def test_columns_new_key_adds_column() -> None:
    columns = Columns(None, "epoch")
    assert columns.add_keys(["epoch", "loss"])
    assert columns.add_keys(["epoch", "val/loss"])
    assert columns.keys == ["epoch", "loss", "val/loss"]


def test_columns_given_keys_stay_unchanged() -> None:
    columns = Columns(["loss"], "epoch")
    assert not columns.add_keys(["epoch", "val/loss"])
    assert columns.keys == ["loss"]
