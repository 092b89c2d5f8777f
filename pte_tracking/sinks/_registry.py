"""Installed sinks, found by entry point."""

from __future__ import annotations

import functools
import importlib.metadata

from pte_tracking.sinks._contract import Sink

ENTRY_POINT_GROUP = "pte_tracking.sinks"


def installed_sinks() -> list[str]:
    """The sinks that are installed, sorted."""
    _installed.cache_clear()
    return sorted(_installed())


@functools.cache  # looking through all installed packages takes tens of milliseconds
def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    points = list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
    return {point.name: point for point in reversed(points)}  # of several of one name the first counts


@functools.cache
def get_sink(name: str) -> type[Sink]:
    """The class of an installed sink.

    Raises:
        ValueError: There is none of that name, or it cannot be imported.
        TypeError: What has the name is no sink.
    """
    # A name that is missing may have been installed a moment ago: names() looks again.
    if name not in _installed() and name not in (known := installed_sinks()):
        raise ValueError(
            f"sinks: no sink is called {name!r}; installed are {', '.join(known) or 'none'}. "
            f"A sink is found by the entry point group {ENTRY_POINT_GROUP!r} of an installed package."
        )
    point = _installed()[name]
    try:
        loaded = point.load()
    except Exception as error:
        raise ValueError(
            f"sinks: {name!r} cannot be loaded from {point.value!r} ({error}); install its package again"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Sink)):
        raise TypeError(
            f"entry point {name!r} of {ENTRY_POINT_GROUP!r} is {loaded!r}, not a subclass of pte_tracking.sinks.Sink"
        )
    return loaded
