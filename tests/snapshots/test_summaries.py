"""Sums in the states of extensions, which are merged when the number of ranks changes."""

from __future__ import annotations

from typing import Any

import pytest

from pte_tracking._snapshots.summaries import merge_sums, reset_sums
from pte_tracking.reporter import DictSummary


def make_sum(*values: float) -> Any:
    summary = DictSummary()
    for value in values:
        summary.add({"x": value})
    (state,) = summary.state_dict().values()
    return state


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        (make_sum(1), make_sum(2), make_sum(1, 2)),
        ({"a": make_sum(1), "n": 5}, {"a": make_sum(2), "n": 6}, {"a": make_sum(1, 2), "n": 5}),
        ([make_sum(1), 5], [make_sum(2), 6], [make_sum(1, 2), 5]),
        ((make_sum(1), make_sum(3)), (make_sum(2), make_sum(4)), (make_sum(1, 2), make_sum(3, 4))),
        ({"a": [{"b": make_sum(1)}]}, {"a": [{"b": make_sum(2)}]}, {"a": [{"b": make_sum(1, 2)}]}),
        ({"a": make_sum(1)}, {"b": make_sum(2), "n": 6}, {"a": make_sum(1), "b": make_sum(2)}),
        ([make_sum(1)], [make_sum(2), make_sum(3)], [make_sum(1, 2), make_sum(3)]),
        ([make_sum(1), make_sum(3)], [make_sum(2)], [make_sum(1, 2), make_sum(3)]),
        ([make_sum(1)], {"a": make_sum(2)}, [make_sum(1)]),
        ({"a": "text"}, None, {"a": "text"}),
    ],
)
def test_merge_adds_sums_at_any_depth_and_keeps_other_values(first: Any, second: Any, merged: Any) -> None:
    assert merge_sums(first, [second]) == merged
    assert merge_sums(first, [second, second]) == merge_sums(merged, [second])


def test_reset_empties_sums_at_any_depth_and_keeps_other_values() -> None:
    empty = merge_sums(reset_sums(make_sum(1)), [])
    state = {"a": [make_sum(1), (make_sum(2), 5)], "b": make_sum(3), "n": 6}
    assert reset_sums(state) == {"a": [empty, (empty, 5)], "b": empty, "n": 6}
    assert merge_sums(reset_sums(state), [state]) == state
