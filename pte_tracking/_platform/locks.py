"""Locks of files, bytes, and directories, which end with their process.

On Linux, the lock of a whole file is an open file description lock, so copying or hashing a lock file does not
release the lock of this process. On other POSIX systems, and on file systems without such locks, it is a record lock,
which closing *any* descriptor of the file releases. Both kinds exclude each other. On Windows, it is the lock of a byte
far after the end, because Windows lets no other process read locked bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pte_tracking._platform.files import position_lock

_HELD_ERRORS = (errno.EACCES, errno.EAGAIN)

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 30
    _MAX_LOCK_ATTEMPTS = 1000
    _LOCK_PAUSE_SECONDS = 0.01

    def lock_byte(fd: int, position: int, *, wait: bool) -> bool:
        """Lock a byte of a file, which may be after its end. Return False if another process holds the lock."""
        for attempt in range(_MAX_LOCK_ATTEMPTS if wait else 1):
            # msvcrt.LK_LOCK waits as well, but then other threads could not access files meanwhile.
            if attempt:
                time.sleep(_LOCK_PAUSE_SECONDS)
            with position_lock, contextlib.suppress(PermissionError):
                os.lseek(fd, position, os.SEEK_SET)
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
                return True
        return False

    def unlock_byte(fd: int, position: int) -> None:
        """Release the lock of a byte."""
        with position_lock:
            os.lseek(fd, position, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    def try_lock(fd: int) -> bool:
        """Lock a file. Return False if another process holds the lock."""
        return lock_byte(fd, _LOCKED_BYTE, wait=False)

    def holding_pid(fd: int) -> int | None:
        """Return 0 if a process holds the lock, whose ID Windows does not report. Return None if the lock is free."""
        # Windows has no query. A process that tries to lock the file meanwhile tries again.
        if not lock_byte(fd, _LOCKED_BYTE, wait=False):
            return 0
        unlock_byte(fd, _LOCKED_BYTE)
        return None

else:
    import fcntl

    #: Type, origin, start, length and process ID of a lock: ``struct flock`` on Linux.
    _LINUX_LOCK = struct.Struct("hhqqi")
    #: Start, length, process ID, type and origin of a lock: ``struct flock`` on macOS and BSD.
    _BSD_LOCK = struct.Struct("qqihh")

    def lock_byte(fd: int, position: int, *, wait: bool) -> bool:
        """Lock a byte of a file, which may be after its end. Return False if another process holds the lock."""
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
        except OSError as error:
            if error.errno in (*_HELD_ERRORS, errno.EDEADLK):
                return False
            raise
        return True

    def unlock_byte(fd: int, position: int) -> None:
        """Release the lock of a byte."""
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, position)

    def try_lock(fd: int) -> bool:
        """Lock a file. Return False if another process holds the lock."""
        try:
            if sys.platform == "linux":
                try:
                    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LINUX_LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
                    return True
                except OSError as error:
                    if error.errno in _HELD_ERRORS:
                        return False
            # Some file systems have only POSIX record locks.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _HELD_ERRORS:
                return False
            raise

    def holding_pid(fd: int) -> int | None:
        """Return the ID of the process that holds the lock, None if it is free.

        The ID is 0 or less if the process runs on another machine, or holds an open file description lock.
        """
        # A query does not acquire the lock, unlike an attempt to lock.
        if sys.platform == "linux":
            result = fcntl.fcntl(fd, fcntl.F_GETLK, _LINUX_LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            lock_type, _, _, _, pid = _LINUX_LOCK.unpack(result)
        else:
            result = fcntl.fcntl(fd, fcntl.F_GETLK, _BSD_LOCK.pack(0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET))
            _, _, pid, lock_type, _ = _BSD_LOCK.unpack(result)
        return None if lock_type == fcntl.F_UNLCK else pid


@contextlib.contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Let processes enter a block one after the other.

    They do not wait for each other if the directory does not exist, on file systems without locks, and on Windows.

    Args:
        directory: Directory to lock. The files in it are not locked.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import locked_directory
        >>> with tempfile.TemporaryDirectory() as directory, locked_directory(pathlib.Path(directory)):
        ...     pathlib.Path(directory, "created by one process").touch()
    """
    if sys.platform == "win32":
        yield
    else:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                descriptor = os.open(directory, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
