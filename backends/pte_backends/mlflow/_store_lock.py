"""Creation, replacement, and concurrent use of a local SQLite store."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from pte_tracking.sinks import locked_directory

_logger = logging.getLogger("pte_tracking")
#: Device and inode of each file that a store had in this process. None while MLflow opens it.
_files: dict[str, list[tuple[int, int] | None]] = {}
_files_lock = threading.Lock()
#: Locks of the SQLite stores of this process, by path.
_thread_locks: dict[Path, threading.RLock] = {}


def one_thread_at_a_time(uri: str) -> contextlib.AbstractContextManager[object]:
    """Return a lock for the threads of this process that use a SQLite store.

    A process delivers several runs, each in its own thread. Threads that write at the same time would wait for the lock
    of SQLite, which serves them in no order, until some of them fail, and would occupy all connections of the store.

    Args:
        uri: Tracking URI. Other stores are not locked.

    Returns:
        A context manager that may be used repeatedly.
    """
    path = store_path(uri)
    if path is None:
        return contextlib.nullcontext()
    with _files_lock:
        return _thread_locks.setdefault(path, threading.RLock())


@contextlib.contextmanager
def open_store(uri: str) -> Iterator[str]:
    """Exclude other processes while a SQLite store is opened or created.

    MLflow creates a store in several steps. Two processes that do so at the same time, such as the first runs of a
    sweep, leave a store that cannot be opened. The lock is on the directory: SQLite locks the file itself, and its lock
    would be released when this lock is closed.

    Args:
        uri: Tracking URI. A URI that is not a SQLite file is not locked.

    Yields:
        The URI to open. MLflow keeps a store open for the life of the process. If its file was deleted or replaced
        meanwhile, the store refuses every write. A repeated slash in the path makes MLflow open the new file.
    """
    path = store_path(uri)
    if path is None:
        yield uri
        return
    with locked_directory(path.parent):
        if not path.exists():
            _logger.info("mlflow: creating the database %s", path)
        with _files_lock:
            files = _files.setdefault(uri, [])
            if not files or files[-1] != _identify(path):
                files.append(None)
            number = len(files)
        yield uri.replace(":///", ":///" + "/" * (number - 1), 1)
        with _files_lock:
            files[number - 1] = _identify(path)


def store_path(uri: str) -> Path | None:
    """Return the file of a SQLite store. None for other stores.

    Args:
        uri: Tracking URI.
    """
    scheme, _, path = uri.partition(":///")
    return Path(unquote(path)) if scheme.startswith("sqlite") and path else None


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None  # MLflow creates the file.
    return status.st_dev, status.st_ino
