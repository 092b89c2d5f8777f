"""Owner of a run directory that is delivered."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._platform.files import is_own
from pte_tracking._store.layout import JOURNAL, MANIFEST
from pte_tracking._store.manifest import RunNotFoundError


def check_owner(directory: Path) -> None:
    """Check that the user of this process owns a run directory, as git does.

    A delivery sends the files of the directory to the server that they name.

    Args:
        directory: The run directory.

    Raises:
        RunNotFoundError: If another user owns the directory, its manifest, or its journal.
    """
    for path in (directory, directory / MANIFEST, directory / JOURNAL):
        try:
            owner = path.stat().st_uid
        except OSError:  # reported when the run is read
            continue
        if not is_own(owner):
            raise RunNotFoundError(
                f"{path}: owned by user ID {owner}, not by you. Its files name the server that a delivery uses. "
                "If you trust that user, pass --trust."
            )
