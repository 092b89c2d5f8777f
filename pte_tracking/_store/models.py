"""Exported models of a run."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._store.events import Model
from pte_tracking._store.journal_reader import effective_ranges, find_events
from pte_tracking._store.layout import JOURNAL


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
    path = directory / JOURNAL
    if not path.exists() or not path.stat().st_size:
        return []
    models: dict[str, Model] = {}
    for first, last in effective_ranges(path):
        for event, _ in find_events(path, Model, first, last):
            models.pop(event.path, None)
            models[event.path] = event
    return list(models.values())
