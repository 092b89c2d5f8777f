"""Parameters of a run for display."""

from __future__ import annotations

from typing import Any

from pte_tracking._runs.summary import RunSummary


def describe_params(run: RunSummary) -> dict[str, Any]:
    """Return the parameters of a run by name. A value that a resume has changed is a text with the earlier values.

    Args:
        run: The run.
    """
    changed = {key: _describe(run.params[key], *earlier) for key, earlier in run.earlier_params.items()}
    return {**run.params, **changed}


def _describe(value: Any, *earlier: Any) -> str:
    text, *others = (f"{item:.6g}" if isinstance(item, float) else str(item) for item in (value, *earlier))
    return f"{text} (before a resume: {', '.join(others)})"
