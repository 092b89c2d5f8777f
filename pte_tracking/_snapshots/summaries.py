"""Sums under way in the states of several ranks, where another number of ranks goes on with them.

All sums are saved in one form, that of :class:`pte_tracking.reporter.Summary`, and found by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pte_tracking.reporter import SummaryState

_SUM_KEYS = SummaryState.__annotations__.keys()


def merge_sums(state: Any, others: Sequence[Any]) -> Any:
    """A state with the sums of others added to its own; all else in it stays."""
    if _is_sum(state):
        return {key: sum(each[key] for each in (state, *filter(_is_sum, others))) for key in _SUM_KEYS}
    if not isinstance(state, dict):
        return state
    dictionaries = [other for other in others if isinstance(other, dict)]
    missing = (key for other in dictionaries for key, value in other.items() if _is_sum(value) and key not in state)
    merged = {}
    for key in dict.fromkeys([*state, *missing]):
        value, *other_values = [each[key] for each in (state, *dictionaries) if key in each]
        merged[key] = merge_sums(value, other_values)
    return merged


def reset_sums(state: Any) -> Any:
    """A state with nothing in its sums."""
    if not isinstance(state, dict):
        return state
    if _is_sum(state):
        return dict.fromkeys(_SUM_KEYS, 0)
    return {key: reset_sums(value) for key, value in state.items()}


def _is_sum(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _SUM_KEYS
