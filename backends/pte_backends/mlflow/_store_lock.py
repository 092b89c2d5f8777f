"""The making of a new local store, by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote


@contextlib.contextmanager
def exclusive_creation(uri: str) -> Iterator[None]:
    """A ``with`` block that is entered by one process at a time for one SQLite store.

    MLflow makes a new store step by step; two processes that do so at one moment, such as the first runs of a sweep,
    leave one that nobody can open any more. What is locked is the folder: SQLite's own locks are on the file, and would
    be given up when we close it.
    """
    scheme, _, path = uri.partition(":///")
    descriptor = _open_directory(Path(unquote(path)).parent) if scheme.startswith("sqlite") and path else None
    try:
        if descriptor is not None:
            with contextlib.suppress(OSError):  # not every file system of a network has such locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_directory(directory: Path) -> int | None:
    try:
        return os.open(directory, os.O_RDONLY)
    except OSError:
        return None  # MLflow makes it, or says what is wrong with it
