"""Lock for the creation of a local store."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote


@contextlib.contextmanager
def exclusive_creation(uri: str) -> Iterator[None]:
    """Exclude other processes while a SQLite store is opened or created.

    MLflow creates a store in several steps. Two processes that do so at the same time, such as the first runs of a
    sweep, leave a store that cannot be opened. The lock is on the directory: SQLite locks the file itself, and its lock
    would be released when this lock is closed.

    Args:
        uri: Tracking URI. A URI that is not a SQLite file is not locked.
    """
    scheme, _, path = uri.partition(":///")
    descriptor = _open_directory(Path(unquote(path)).parent) if scheme.startswith("sqlite") and path else None
    try:
        if descriptor is not None:
            with contextlib.suppress(OSError):  # Some network file systems do not support locks.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_directory(directory: Path) -> int | None:
    try:
        return os.open(directory, os.O_RDONLY)
    except OSError:
        return None  # MLflow creates the directory or reports why it cannot.
