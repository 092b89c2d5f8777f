"""Lock of a run directory, which has one writer."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._store import lock
from pte_tracking._store.files import make_durable_directory
from pte_tracking._store.layout import WRITER_LOCK
from pte_tracking._store.manifest import check_format


class DirectoryInUseError(RuntimeError):
    """Raised when another live process, or another object in this process, writes to the run directory.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, sinks=["json"]):
        ...         try:
        ...             pte.Run(directory).open()
        ...         except pte.DirectoryInUseError:
        ...             print("in use")
        in use
    """


def lock_directory(directory: Path) -> lock.Lock:
    """Lock a run directory for writing. The directory is created if it does not exist.

    Raises:
        DirectoryInUseError: If another live process holds the lock.
        RunNotFoundError: If the directory contains a run of another format.
    """
    check_format(directory)  # before the lock file is changed
    make_durable_directory(directory)
    try:
        return lock.Lock(directory / WRITER_LOCK)
    except lock.LockedError as error:
        holder, action = str(error.holder), "Stop that process"
        if error.is_own_process:
            holder, action = "another manager or Run in this process", "Call its close() first"
        raise DirectoryInUseError(
            f"Run directory {str(directory)!r} is in use by {holder}. {action} or choose another run directory."
        ) from None
