"""Lock of a whole file, which ends with its process.

On Linux, the lock is an open file description lock, so that copying or hashing a lock file does not release the lock of
this process. On other POSIX systems, and on file systems without such locks, it is a record lock, which closing *any*
descriptor of the file releases. Both kinds exclude each other. On Windows, it is the lock of a byte far after the end,
because Windows lets no other process read locked bytes.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from pte_tracking._platform.files import lock_byte, unlock_byte

_HELD_ERRORS = (errno.EACCES, errno.EAGAIN)

if sys.platform == "win32":
    _LOCKED_BYTE = 1 << 30

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
