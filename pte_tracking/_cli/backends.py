"""The command ``pte-tracking backends``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any, get_args

import msgspec
from rich.console import Console

from pte_tracking._cli.rendering import AsJson, create_console, drop_columns, fits, print_json, print_line, print_table
from pte_tracking.sinks import (
    ENTRY_POINT_GROUP,
    Display,
    EventKind,
    Sink,
    check_client,
    find_display,
    get_sink,
    installed_sinks,
)


class InstalledBackend(msgspec.Struct, frozen=True):
    """Description of an installed sink.

    Attributes:
        name: Name of the sink, as passed in ``sinks=``.
        package: Name and version of the package that registers the sink.
        client: Name and version of the client library. None if the sink requires none, or it is not installed.
        inline: Whether the training process writes the sink.
        rewinds: Whether the sink can remove superseded events with its default options. None if an option has no
            default.
        shows: How the sink shows each kind of event. None if it does not declare that.
        problem: Why the sink cannot be used, and the command that helps. None if it can be used.
    """

    name: str
    package: str
    client: str | None = None
    inline: bool = False
    rewinds: bool | None = None
    shows: Mapping[EventKind, Display] | None = None
    problem: str | None = None


def list_backends(as_json: AsJson = False) -> None:
    """List the installed backends.

    Show the installed version of the client library, or the command that installs it, the process that writes the
    backend, whether superseded events can be removed, and the kinds of events that the backend shows.
    """
    packages = _find_packages()
    backends = [_describe(name, packages.get(name, "")) for name in installed_sinks()]
    if as_json:
        print_json([msgspec.to_builtins(backend) for backend in backends])
        return
    print_backends(create_console(), backends)


def print_backends(console: Console, backends: list[InstalledBackend]) -> None:
    """Print a table of backends, and one line for each that cannot be used.

    Args:
        console: Console to print to.
        backends: The backends.
    """
    rows = [_build_row(backend) for backend in backends]
    if fits(console, rows):
        print_table(console, "", rows)
    else:
        print_table(console, "", drop_columns(rows, ["Shows"]))
        print_table(console, "Kinds of events", [{key: row[key] for key in ("Backend", "Shows")} for row in rows])
    if any("artifact" in (backend.shows or {}).values() for backend in backends):
        print_line(console, "* shown as an artifact or a text")
    for backend in backends:
        if backend.problem:
            print_line(console, backend.problem, "bold")


def _find_packages() -> dict[str, str]:
    # If several packages register the same name, the first one is used.
    entry_points = reversed(list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)))
    return {point.name: f"{point.dist.name} {point.dist.version}" for point in entry_points if point.dist}


def _describe(name: str, package: str) -> InstalledBackend:
    try:
        sink = get_sink(name)
    except (ValueError, TypeError) as error:
        return InstalledBackend(name, package, problem=str(error))
    shows = sink.shows and {kind: way for kind in get_args(EventKind) if (way := find_display(sink.shows, kind))}
    try:
        check_client(sink)
        problem = None
    except ValueError as error:
        problem = str(error)
    return InstalledBackend(
        name, package, _find_client(sink.requires), sink.inline, _find_rewinds(sink), shows, problem
    )


def _find_client(module: str | None) -> str | None:
    try:
        return module and f"{module} {importlib.metadata.version(module)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _find_rewinds(sink: type[Sink]) -> bool | None:
    try:
        return sink().rewinds
    except TypeError:  # an option has no default
        return None


def _build_row(backend: InstalledBackend) -> dict[str, Any]:
    shows = backend.shows
    return {
        "Backend": backend.name,
        "Version": backend.client or ("not usable" if backend.problem else backend.package),
        "Written by": "training" if backend.inline else "delivery",
        "Rewinds": {True: "yes", False: "no", None: "-"}[backend.rewinds],
        "Shows": " ".join(kind + "*" * (display == "artifact") for kind, display in shows.items()) if shows else "-",
    }
