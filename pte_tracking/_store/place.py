"""Identity of a run directory, which may be moved or replaced while its run is written."""

from __future__ import annotations

import os
from pathlib import Path


class Place:
    """Directory that its path refers to now.

    Args:
        directory: The directory.

    Raises:
        OSError: If the directory does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        status = os.stat(directory)
        self._identity = status.st_dev, status.st_ino

    def is_current(self) -> bool:
        """Whether the path refers to the same directory as before. True if a file system does not respond."""
        try:
            status = os.stat(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return self._identity == (status.st_dev, status.st_ino)

    def check(self) -> None:
        """Raise an exception if the path does not refer to the directory.

        Raises:
            RuntimeError: If the directory was moved, replaced, or deleted.
        """
        if not self.is_current():
            raise RuntimeError(
                f"Run directory {str(self._directory)!r} was moved, replaced or deleted while its run is open. Nothing "
                "more is written to this path. Continue the run with its new path and resume()."
            )
