"""Sums under way in the states of several ranks, where another number of ranks goes on with them.

All sums are saved in one form, that of :class:`pte_tracking.reporter.Summary`, and found by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pte_tracking.reporter import SummaryState

_FORM = SummaryState.__annotations__.keys()


def merge_sums(state: Any, others: Sequence[Any]) -> Any:
    """A state with the sums of others added to its own; all else in it stays."""
    if _is_sum(state):
        return {key: sum(one[key] for one in (state, *filter(_is_sum, others))) for key in _FORM}
    if not isinstance(state, dict):
        return state
    alike = [one for one in others if isinstance(one, dict)]
    lacking = (key for one in alike for key, value in one.items() if _is_sum(value) and key not in state)
    found = {}
    for key in dict.fromkeys([*state, *lacking]):
        first, *rest = [one[key] for one in (state, *alike) if key in one]
        found[key] = merge_sums(first, rest)
    return found


def reset_sums(state: Any) -> Any:
    """A state with nothing in its sums."""
    if not isinstance(state, dict):
        return state
    if _is_sum(state):
        return dict.fromkeys(_FORM, 0)
    return {key: reset_sums(value) for key, value in state.items()}


def _is_sum(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _FORM
