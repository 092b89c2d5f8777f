"""Registry of installed sinks, based on entry points."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging

from pte_tracking._store.dependencies import find_outdated
from pte_tracking._store.similar import suggest
from pte_tracking.sinks._contract import Sink

#: Entry point group in which packages register their sinks.
ENTRY_POINT_GROUP = "pte_tracking.sinks"

_logger = logging.getLogger("pte_tracking")


def installed_sinks() -> list[str]:
    """Return the names of all installed sinks.

    Returns:
        The names in alphabetical order. Packages that were installed after the last call are included.

    Example:
        >>> from pte_tracking.sinks import installed_sinks
        >>> "json" in installed_sinks()
        True
    """
    _entry_points.cache_clear()
    return sorted(_entry_points())


@functools.cache  # Scanning all installed packages takes tens of milliseconds.
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    # If several packages register the same name, the first entry point wins.
    entry_points = reversed(list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)))
    return {entry_point.name: entry_point for entry_point in entry_points}


@functools.cache
def get_sink(name: str) -> type[Sink]:
    """Return the class of an installed sink.

    Args:
        name: Name of the sink, which is also the name of its entry point.

    Returns:
        The sink class. The client library of the backend does not need to be installed.

    Raises:
        ValueError: If no sink with this name is installed, or its module cannot be imported.
        TypeError: If the entry point does not refer to a subclass of :class:`Sink`.

    Example:
        >>> from pte_tracking.sinks import get_sink
        >>> get_sink("json")
        <class 'pte_backends.json._sink.JsonSink'>
    """
    # installed_sinks() clears the cache, so a package that was installed a moment ago is found.
    if name not in _entry_points() and name not in (names := installed_sinks()):
        raise ValueError(f"Unknown sink {name!r}.{suggest(name, names)} Known sinks: {', '.join(names) or 'none'}.")
    entry_point = _entry_points()[name]
    try:
        loaded = entry_point.load()
    except Exception as error:
        raise ValueError(
            f"Sink {name!r} cannot be loaded from {entry_point.value!r}: {error}. Reinstall its package. If the "
            "package is your own, correct its module, or the entry point in its pyproject.toml, first."
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Sink)):
        raise TypeError(
            f"Entry point {name!r} in the group {ENTRY_POINT_GROUP!r} is {loaded!r}. "
            "Expected a subclass of pte_tracking.sinks.Sink."
        )
    return loaded


def load_sinks() -> list[type[Sink]]:
    """Return the classes of all installed sinks that can be loaded.

    A sink that cannot be loaded does not affect the others. A warning names the sink and the cause.

    Returns:
        The sink classes, in alphabetical order of the names.

    Example:
        >>> from pte_tracking.sinks import load_sinks
        >>> [sink for sink in load_sinks() if "runs" in sink.schemes]
        [<class 'pte_backends.mlflow._sink.MLflowSink'>]
    """
    sinks = []
    for name in installed_sinks():
        try:
            sinks.append(get_sink(name))
        except (ValueError, TypeError) as error:
            _logger.warning("%s", error)
    return sinks


def check_client(sink: type[Sink]) -> None:
    """Check the client library of a sink.

    The lowest supported version is read from the metadata of the package that registers the sink.

    Args:
        sink: The sink class.

    Raises:
        ValueError: If the client library is not installed, or its version is older than the lowest supported version.

    Example:
        >>> from pte_tracking.sinks import check_client, get_sink
        >>> check_client(get_sink("json"))
    """
    if sink.requires is None:
        return
    spec = importlib.util.find_spec(sink.requires)
    if spec is None or spec.origin is None:  # A directory of results, such as wandb, is a namespace package.
        raise ValueError(f"Sink {sink.name!r} is not installed. Run: {sink.install}")
    check_client_version(sink)


@functools.cache  # Reading the metadata takes milliseconds, and the end of a run checks its pending events repeatedly.
def check_client_version(sink: type[Sink]) -> None:
    """Check the version of the client library of a sink. Raise ValueError if it is not supported."""
    assert sink.requires is not None
    entry_point = _entry_points().get(sink.name)
    problem = entry_point and entry_point.dist and find_outdated(sink.requires, entry_point.dist.requires or ())
    if problem:
        raise ValueError(f"Sink {sink.name!r} {problem}")
