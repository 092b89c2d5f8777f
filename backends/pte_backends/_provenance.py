"""Files and facts of the origin of a session, for the backends that have a place for them."""

from __future__ import annotations

from pathlib import Path

from pte_tracking.sinks import Provenance, RunView, owned_path


def find_provenance_file(event: Provenance, run: RunView, name: str) -> Path | None:
    """Return a file of a session.

    Args:
        event: Origin of the session.
        run: Run to deliver.
        name: Name of the file, such as ``"diff.txt"``.

    Returns:
        The file. None if the session has none, or if it was deleted.
    """
    path = owned_path(run.directory, event.files[name]) if name in event.files else None
    return path if path is not None and path.is_file() else None


def read_provenance_file(event: Provenance, run: RunView, name: str) -> str:
    """Return the text of a file of a session, empty if there is none. See :func:`find_provenance_file`."""
    path = find_provenance_file(event, run, name)
    return "" if path is None else path.read_text(encoding="utf-8", errors="replace")
