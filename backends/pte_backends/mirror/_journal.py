"""Journal of a run at a mirror."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from pte_backends.mirror._parts import PartedCopy, download_parts
from pte_backends.mirror._store import Store
from pte_tracking.sinks import JOURNAL, SinkClosedError

_FOLDER = "journal"
_OWNER = "owner.json"


class JournalCopy(PartedCopy):
    """Copy of the journal of a run.

    Args:
        store: Mirror.
        run_id: ID of the run.
        directory: Run directory.

    Raises:
        SinkClosedError: If the run continued in another directory, which copied its journal.
    """

    def __init__(self, store: Store, run_id: str, directory: Path) -> None:
        super().__init__(store, f"{run_id}/{_FOLDER}", directory / JOURNAL)
        self._owner_name = f"{run_id}/{_OWNER}"
        while not self.is_last_part_equal():
            if store.read(self._owner_name) != self._owner():
                raise SinkClosedError(
                    f"{store.url} contains a later part of this run, which another directory or machine recorded, so "
                    f"nothing of {directory} is copied. To continue from the mirror, move this directory and start "
                    f"again. To continue here, delete {store.url}/{run_id} and run: pte-tracking sync {directory}"
                )
            self.remove_last_part()  # A loss of power took events that were copied.

    def claim(self) -> None:
        """Record that this directory copies the journal."""
        self._store.write(self._owner_name, self._owner())

    def _owner(self) -> bytes:
        """Return what distinguishes this run directory from a copy of it, and from that of another machine."""
        parts = {"host": socket.gethostname(), "journal": str(self._path), "inode": self._path.stat().st_ino}
        return json.dumps(parts).encode()


def download_journal(store: Store, run_id: str, path: Path) -> None:
    """Write the complete lines of the journal at a mirror to a file.

    Args:
        store: Mirror.
        run_id: ID of the run.
        path: File to write.
    """
    download_parts(store, f"{run_id}/{_FOLDER}", path)
