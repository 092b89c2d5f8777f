"""Conversion between configured sinks and their entries in the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking._store.printable import describe_value
from pte_tracking.sinks import ENTRY_POINT_GROUP, Sink, check_client, get_sink, installed_sinks


def build_sink(entry: SinkEntry) -> Sink:
    """Create the sink of a manifest entry.

    Args:
        entry: The entry.

    Returns:
        The sink.

    Raises:
        ValueError: If the sink or a supported version of its client library is not installed, or if the sink does not
            accept the options.
    """
    sink_type = get_sink(entry.name)
    check_client(sink_type)
    try:
        return sink_type(**entry.options)
    except TypeError as error:
        raise ValueError(f"sinks: {entry.name!r} does not accept the options {entry.options!r}: {error}") from error


def check_sinks(sinks: Iterable[str | Sink]) -> list[Sink]:
    """Convert names to sinks, and check that the delivery process can create each sink.

    Args:
        sinks: Names of installed sinks, and configured sinks.

    Returns:
        The sinks.

    Raises:
        ValueError: If a name is unknown, or a supported version of a client library is not installed.
        TypeError: If an element is neither a name nor a sink, if no entry point refers to the class of a sink, or if a
            field of a sink is not plain JSON.
    """
    if isinstance(sinks, str | Sink):
        raise TypeError(f"sinks: expected a list of names or sinks, got {sinks!r}. Write [{sinks!r}].")
    checked = []
    for sink in sinks:
        if isinstance(sink, str):
            sink_type = get_sink(sink)
            check_client(sink_type)
            sink = sink_type()
        elif isinstance(sink, type) and issubclass(sink, Sink):
            raise TypeError(f"sinks: expected an instance, got the class {sink.__name__}. Write {sink.__name__}(...).")
        elif not isinstance(sink, Sink):
            raise TypeError(
                f"sinks: expected names ({', '.join(installed_sinks())}) or Sink objects, got {describe_value(sink)}"
            )
        elif not _is_registered(type(sink)):
            raise TypeError(
                f"sinks: {type(sink).__name__} is not the entry point {sink.name!r} of the group "
                f"{ENTRY_POINT_GROUP!r}, so the delivery process cannot find the class. Declare the entry point in the "
                "pyproject.toml of the package and install the package."
            )
        else:
            check_client(type(sink))
        _fields(sink)
        checked.append(sink)
    return checked


def add_sinks(manifest: Manifest, sinks: Sequence[Sink]) -> Manifest:
    """Add sinks and their files to a manifest.

    Args:
        manifest: Manifest of the run.
        sinks: The configured sinks.

    Returns:
        The changed manifest.
    """
    files = dict.fromkeys([*manifest.files, *(pattern for sink in sinks for pattern in sink.files)])
    return msgspec.structs.replace(manifest, sinks=merge_sink_entries(sinks, manifest.sinks), files=list(files))


def merge_sink_entries(sinks: Sequence[Sink], known: Sequence[SinkEntry] = ()) -> list[SinkEntry]:
    """Add entries for sinks to the entries of a run, with values from the environment resolved.

    A sink with the same fields as an existing entry keeps that entry, even if the environment has changed, so that a
    resumed run is delivered to the same destination. A sink with other fields and the same destination replaces the
    fields of the entry.

    Args:
        sinks: The configured sinks.
        known: The existing entries.

    Returns:
        The existing entries, followed by the new entries.
    """
    entries = list(known)
    for sink in sinks:
        given = _fields(sink)
        resolved = sink.resolve()  # also tells a backend which server this process, and not the run, names
        if any(entry.name == sink.name and entry.given == given for entry in entries):
            continue
        index = _find_destination(entries, resolved)
        if index is not None:
            entries[index] = SinkEntry(entries[index].key, sink.name, _fields(resolved), given)
            continue
        keys = {entry.key for entry in entries}
        candidates = [sink.name, *(f"{sink.name}-{number}" for number in range(2, len(keys) + 2))]
        key = next(candidate for candidate in candidates if candidate not in keys)
        entries.append(SinkEntry(key, sink.name, _fields(resolved), given))
    return entries


def _find_destination(entries: Sequence[SinkEntry], sink: Sink) -> int | None:
    for index, entry in enumerate(entries):
        if entry.name != sink.name:
            continue
        with contextlib.suppress(TypeError, ValueError):  # options of another version
            if type(sink)(**entry.options).destination == sink.destination:
                return index
    return None


def _is_registered(sink: type[Sink]) -> bool:
    try:
        return get_sink(sink.name) is sink
    except ValueError:
        return False


def _fields(sink: Sink) -> dict[str, Any]:
    """Return the fields of a sink as they are read from ``run.json``."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dataclasses.asdict(sink)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"sinks: {sink.name!r} has a field that is not plain JSON: {error}") from error
    return fields
