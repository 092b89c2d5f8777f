"""Lock of a run directory, which has one writer."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._store import lock
from pte_tracking._store.files import make_durable_directory
from pte_tracking._store.layout import WRITER_LOCK
from pte_tracking._store.manifest import check_format
from pte_tracking._store.signal_errors import raise_from_signal_handler


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
        OSError: If the directory or its lock file cannot be created.
        RunNotFoundError: If the directory contains a run of another format.
    """
    check_format(directory)  # before the lock file is changed
    try:
        make_durable_directory(directory)
        return lock.Lock(directory / WRITER_LOCK)
    except OSError as error:
        raise_from_signal_handler(error)
        text = f"Run directory {str(directory)!r} cannot be created or written: {error.strerror or error}"
        raise OSError(error.errno, f"{text}. Choose another run directory", error.filename) from None
    except lock.LockedError as error:
        if error.is_own_process:
            raise _in_use(directory, "another manager or Run in this process", "Call its close() first") from None
        raise _in_use(directory, str(error.holder)) from None


def check_other_processes(directory: Path) -> None:
    """Check that no other process writes to a run directory, before its files are read for a resume.

    Raises:
        DirectoryInUseError: If another live process holds the lock.
    """
    path = directory / WRITER_LOCK
    if not lock.is_held_here(path) and (holder := lock.holder(path)):
        raise _in_use(directory, str(holder))


def _in_use(directory: Path, holder: str, action: str = "Stop that process") -> DirectoryInUseError:
    return DirectoryInUseError(
        f"Run directory {str(directory)!r} is in use by {holder}. {action} or choose another run directory."
    )
