"""One writer at a time: a lock that ends with its process, however that ends.

POSIX record locks are used, since forked children (the workers of a data loader) do not inherit them: a lock held by
``flock``, which lock libraries use, would outlive a killed trainer as long as one of its workers lives. Their trap is
that closing *any* descriptor of the file drops the process's lock, so a process opens the file only here, and asks its
own table first.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

#: The locks that this process holds, by real path.
_held: dict[Path, Lock] = {}


class Locked(RuntimeError):
    """Another live process holds the lock.

    Attributes:
        holder: Its process id and host, as it wrote them, such as ``"4711 on node3"``.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by process {holder}")
        self.holder = holder


class Lock:
    """A held lock.

    Args:
        path: The lock's file; its folder must exist.
        patience: Seconds to go on trying. A little is always right: whoever only asks whether a lock is free holds it for
            that moment.

    Raises:
        Locked: A live process holds it.
    """

    def __init__(self, path: Path, patience: float = 0.5) -> None:
        self._path = path.resolve()
        if self._path in _held:
            raise Locked(path, f"{os.getpid()} on {os.uname().nodename}")
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        deadline = time.monotonic() + patience
        while not _try(self._fd):
            if time.monotonic() > deadline:
                holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip()
                os.close(self._fd)
                raise Locked(path, holder or "unknown")
            time.sleep(0.01)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        _held[self._path] = self

    def release(self) -> None:
        """Give it up. The file stays: removing it would let two processes lock two files of one name."""
        if _held.pop(self._path, None):
            os.close(self._fd)


def holder(path: Path) -> str | None:
    """Who holds the lock, such as ``"4711 on node3"``; None if nobody does."""
    path = path.resolve()
    if path in _held:
        return f"{os.getpid()} on {os.uname().nodename}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try(fd) else os.pread(fd, 200, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _forget() -> None:
    # A forked child holds none of its parent's locks.
    _held.clear()


os.register_at_fork(after_in_child=_forget)
