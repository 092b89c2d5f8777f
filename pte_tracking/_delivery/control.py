"""Requests to the process that delivers a run.

Each run directory has its own ``delivery/control.json``, so a process can deliver several runs and receive
separate requests for each of them.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from pte_tracking._store.files import write_atomically
from pte_tracking._store.layout import CONTROL, CONTROL_LOCK
from pte_tracking._store.lock import Lock, LockedError
from pte_tracking._store.owned_files import make_owned_directory
from pte_tracking._store.signal_errors import raise_from_signal_handler

_logger = logging.getLogger("pte_tracking")
_LOCK_TIMEOUT_SECONDS = 5.0


class Control(msgspec.Struct, frozen=True):
    """Content of ``delivery/control.json``: how often each request was made.

    Attributes:
        retry: Number of requests to retry failed deliveries immediately.
        handover: Number of requests to release the run to another process.
    """

    retry: int = 0
    handover: int = 0


class ControlReader:
    """Reads the requests for one run. Threads may share a reader.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / CONTROL
        #: The last content, and what identifies the version of the file that it was read from.
        self._cached: tuple[tuple[int, ...] | None, Control] = (None, Control())
        self._initial_handover = self.read().handover

    def read(self) -> Control:
        """Return the current counters, at the cost of one ``stat`` if the file is unchanged."""
        try:
            status = os.stat(self._path)
            # The file is replaced, never changed in place. The inode distinguishes versions with the same coarse time.
            version = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if version != self._cached[0]:
                self._cached = (version, _read(self._path))
        except FileNotFoundError:
            self._cached = (None, Control())
        except OSError as error:  # a shared file system that fails at times
            _logger.debug("%s: %s", self._path, error)
        return self._cached[1]

    def is_handover_requested(self) -> bool:
        """Whether a handover was requested since this reader was created."""
        return self.read().handover != self._initial_handover


def request_retry(directory: Path) -> None:
    """Request that the process that delivers a run retries failed deliveries immediately.

    Args:
        directory: The run directory.
    """
    _request(directory, "retry")


def request_handover(directory: Path) -> None:
    """Request that the process that delivers a run releases it. ``pte-tracking sync`` ignores the request.

    Args:
        directory: The run directory.
    """
    _request(directory, "handover")


def _request(directory: Path, name: str) -> None:
    # A request that cannot be written delays the delivery, but neither the training nor a sync depends on it.
    path = directory / CONTROL
    try:
        make_owned_directory(path.parent, directory)
        lock = Lock(directory / CONTROL_LOCK, timeout=_LOCK_TIMEOUT_SECONDS)
        try:
            control = _read(path)
            changed = msgspec.structs.replace(control, **{name: getattr(control, name) + 1})
            write_atomically(path, msgspec.json.encode(changed))
        finally:
            lock.release()
    except (OSError, LockedError) as error:
        raise_from_signal_handler(error)
        _logger.warning("%s: the request was not written: %s", path, error)


def _read(path: Path) -> Control:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Control)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Control()
