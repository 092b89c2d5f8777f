"""Checks of the options of sinks."""

from __future__ import annotations

from pte_tracking.sinks import Sink


def check_texts(sink: Sink, *names: str) -> None:
    """Check that options are strings or None.

    Args:
        sink: The sink.
        names: Names of the options.

    Raises:
        TypeError: If an option is neither a string nor None.
    """
    for name in names:
        value = getattr(sink, name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name}: expected a string, got {value!r} of type {type(value).__name__}")
