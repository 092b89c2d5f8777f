"""Installed sinks, found by entry point."""

from __future__ import annotations

import functools
import importlib.metadata

from pte_tracking.sinks._contract import Sink

ENTRY_POINT_GROUP = "pte_tracking.sinks"


def installed_sinks() -> list[str]:
    """The sinks that are installed, sorted."""
    _entry_points.cache_clear()
    return sorted(_entry_points())


@functools.cache  # looking through all installed packages takes tens of milliseconds
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    # The first entry point of a name counts.
    entry_points = reversed(list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)))
    return {entry_point.name: entry_point for entry_point in entry_points}


@functools.cache
def get_sink(name: str) -> type[Sink]:
    """The class of an installed sink.

    Raises:
        ValueError: There is none of that name, or it cannot be imported.
        TypeError: What has the name is no sink.
    """
    # A name that is missing may have been installed a moment ago: names() looks again.
    if name not in _entry_points() and name not in (names := installed_sinks()):
        raise ValueError(
            f"sinks: no sink is called {name!r}; installed are {', '.join(names) or 'none'}. "
            f"A sink is found by the entry point group {ENTRY_POINT_GROUP!r} of an installed package."
        )
    entry_point = _entry_points()[name]
    try:
        loaded = entry_point.load()
    except Exception as error:
        raise ValueError(
            f"sinks: {name!r} cannot be loaded from {entry_point.value!r} ({error}); install its package again"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Sink)):
        raise TypeError(
            f"entry point {name!r} of {ENTRY_POINT_GROUP!r} is {loaded!r}, not a subclass of pte_tracking.sinks.Sink"
        )
    return loaded
