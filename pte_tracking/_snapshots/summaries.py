"""Merge unfinished sums of several ranks when the world size changes.

All sums have the keys of :class:`pte_tracking.reporter.Summary`, by which they are recognized in a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pte_tracking.reporter import SummaryState

_SUM_KEYS = SummaryState.__annotations__.keys()


def merge_sums(state: Any, others: Sequence[Any]) -> Any:
    """Add the sums in the states of other ranks to those in a state. All other values are kept."""
    if _is_sum(state):
        return {key: sum(each[key] for each in (state, *filter(_is_sum, others))) for key in _SUM_KEYS}
    if isinstance(state, list | tuple):
        sequences = [dict(enumerate(other)) for other in others if isinstance(other, list | tuple)]
        return type(state)(merge_sums(dict(enumerate(state)), sequences).values())
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
    """Return a state whose sums are empty."""
    if isinstance(state, list | tuple):
        return type(state)(map(reset_sums, state))
    if not isinstance(state, dict):
        return state
    if _is_sum(state):
        return dict.fromkeys(_SUM_KEYS, 0)
    return {key: reset_sums(value) for key, value in state.items()}


def _is_sum(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _SUM_KEYS
