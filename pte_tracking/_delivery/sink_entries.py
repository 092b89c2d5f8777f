"""Sinks as the user configures them, and their entries in the manifest."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pte_tracking._store.manifest import SinkEntry
from pte_tracking.sinks import ENTRY_POINT_GROUP, Sink, get_sink, installed_sinks


def build_sink(entry: SinkEntry) -> Sink:
    """The sink again.

    Raises:
        ValueError: No sink of that name is installed, its product is missing, or the options do not fit it.
    """
    sink_type = get_sink(entry.name)
    _check_installed(sink_type)
    try:
        return sink_type(**entry.options)
    except TypeError as error:
        raise ValueError(f"sinks: {entry.name!r} does not take the options {entry.options!r}: {error}") from error


def check_sinks(sinks: Iterable[str | Sink]) -> list[Sink]:
    """Sinks from names and configured objects.

    Raises:
        ValueError: A name is unknown, or a sink's product is not installed.
        TypeError: Something is neither a name nor a sink, or a sink that no entry point names.
    """
    if isinstance(sinks, str | Sink):
        raise TypeError(f"sinks: expected a list of names or sinks, got {sinks!r}; write [{sinks!r}]")
    checked = []
    for sink in sinks:
        if isinstance(sink, str):
            sink_type = get_sink(sink)
            _check_installed(sink_type)
            sink = sink_type()
        elif not isinstance(sink, Sink):
            raise TypeError(
                f"sinks: expected names ({', '.join(installed_sinks())}) or Sink objects, "
                f"got {sink!r} of type {type(sink).__name__}"
            )
        elif not _is_registered(type(sink)):
            raise TypeError(
                f"sinks: {type(sink).__name__} is not what the entry point {sink.name!r} of the group "
                f"{ENTRY_POINT_GROUP!r} names, so the delivery process could not find it; "
                "declare it in the pyproject.toml of its package and install that"
            )
        else:
            _check_installed(type(sink))
        _fields(sink)
        checked.append(sink)
    return checked


def merge_sink_entries(sinks: Sequence[Sink], known: Sequence[SinkEntry] = ()) -> list[SinkEntry]:
    """The known entries, and those of further sinks with their environment resolved.

    A sink that was given like a known one is that one, wherever the environment points to by now: a resumed run goes on
    where it began.
    """
    entries = list(known)
    for sink in sinks:
        given = _fields(sink)
        if any(entry.name == sink.name and entry.given == given for entry in entries):
            continue
        keys = {entry.key for entry in entries}
        candidates = [sink.name, *(f"{sink.name}-{number}" for number in range(2, len(keys) + 2))]
        key = next(candidate for candidate in candidates if candidate not in keys)
        entries.append(SinkEntry(key, sink.name, _fields(sink.resolve()), given))
    return entries


def _is_registered(sink: type[Sink]) -> bool:
    try:
        return get_sink(sink.name) is sink
    except ValueError:
        return False


def _fields(sink: Sink) -> dict[str, Any]:
    """A sink's configuration as it comes back from ``run.json``."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dataclasses.asdict(sink)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"sinks: {sink.name!r} has a field that is no plain JSON: {error}") from error
    return fields


def _check_installed(sink: type[Sink]) -> None:
    if sink.requires and importlib.util.find_spec(sink.requires) is None:
        raise ValueError(f"sinks: {sink.name!r} needs the package {sink.requires!r}; install it with: {sink.install}")
