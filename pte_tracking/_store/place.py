"""Identity of a run directory, which may be moved or replaced while its run is written."""

from __future__ import annotations

import os
from pathlib import Path

from pte_tracking._store.signal_errors import raise_from_signal_handler


class Place:
    """Directory that its path refers to now.

    Args:
        directory: The directory.

    Attributes:
        moved_message: Error message if the path refers to another directory.

    Raises:
        OSError: If the directory does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        status = os.stat(directory)
        self._identity = status.st_dev, status.st_ino
        self.moved_message = (
            f"{directory} was moved, replaced or deleted while its run is open. Events are written to the journal in "
            "the moved directory, and no other file is written. Continue the run with its new path and resume()."
        )

    def is_current(self) -> bool:
        """Whether the path refers to the same directory as before. True if a file system does not respond."""
        try:
            status = os.stat(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise_from_signal_handler(error)
            return True
        return self._identity == (status.st_dev, status.st_ino)

    def check(self) -> None:
        """Raise an exception if the path does not refer to the directory.

        Raises:
            RuntimeError: If the directory was moved, replaced, or deleted.
        """
        if not self.is_current():
            raise RuntimeError(self.moved_message)
