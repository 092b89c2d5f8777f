"""Exported models and artifacts in the effective history of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pte_tracking._store.events import Artifact, Model
from pte_tracking._store.journal_reader import effective_ranges, find_events
from pte_tracking._store.layout import JOURNAL

_E = TypeVar("_E", Model, Artifact)


def list_models(directory: Path) -> list[Model]:
    """Return the exported models in the effective history.

    Args:
        directory: Run directory.

    Returns:
        Exported models in the order of their events. Empty if the directory contains no run.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import list_models
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     list_models(pathlib.Path(directory))
        []
    """
    return _list(directory, Model)


def list_artifacts(directory: Path) -> list[Artifact]:
    """Return the artifacts in the effective history of a run directory, each path once."""
    return _list(directory, Artifact)


def _list(directory: Path, kind: type[_E]) -> list[_E]:
    path = directory / JOURNAL
    if not path.exists() or not path.stat().st_size:
        return []
    found: dict[str, _E] = {}
    for first, last in effective_ranges(path):
        for event, _ in find_events(path, kind, first, last):
            found.pop(event.path, None)
            found[event.path] = event
    return list(found.values())
