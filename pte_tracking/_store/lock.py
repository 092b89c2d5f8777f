"""One writer at a time: a lock that ends with its process, however that ends.

POSIX record locks are used, since forked children (the workers of a data loader) do not inherit them: a lock held by
``flock``, which lock libraries use, would outlive a killed trainer as long as one of its workers lives. Their trap is
that closing *any* descriptor of the file drops the process's lock, so a process opens the file only here, and asks its
own table first.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_UNKNOWN = "unknown"
#: How often to look whether a holder has written its name: for a second, since the delivery is often out of turn.
_LOOKS = 100

_Answer = TypeVar("_Answer")

#: The locks that this process holds, by real path.
_held: dict[Path, Lock] = {}
#: No thread closes a descriptor of a file that another one is about to lock.
_guard = threading.Lock()


class LockedError(RuntimeError):
    """Another live process holds the lock, or this one already.

    Attributes:
        holder: Its process id and host, as it wrote them, such as ``"4711 on node3"``.
        is_here: It is this process itself.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by process {holder}")
        self.holder = holder
        self.is_here = holder == _me()


class Lock:
    """A held lock.

    Args:
        path: The lock's file; its folder must exist.
        patience: Seconds to go on trying.

    Raises:
        LockedError: A live process holds it.
    """

    def __init__(self, path: Path, timeout: float = 0.0) -> None:
        self._path = path.resolve()
        deadline = time.monotonic() + timeout
        while (other := self._acquire()) is not None:
            if time.monotonic() > deadline:
                raise LockedError(path, other)
            time.sleep(0.01)

    def _acquire(self) -> str | None:
        """Try once; returns who holds it instead."""
        with _guard:
            if self._path in _held:
                return _me()
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                while not _try(self._fd):
                    if other := _holder(self._fd):
                        os.close(self._fd)
                        return other
                # Over what is there, and cut off then: that works on a full disk too.
                name = f"{_me()}\n".encode()
                os.pwrite(self._fd, name, 0)
                os.ftruncate(self._fd, len(name))
            except OSError:
                os.close(self._fd)
                raise
            _held[self._path] = self
            return None

    def release(self) -> None:
        """Give it up. The file stays: removing it would let two processes lock two files of one name."""
        with _guard:
            if _held.pop(self._path, None):
                os.close(self._fd)


def holder(path: Path) -> str | None:
    """Who holds the lock, such as ``"4711 on node3"``, ``"unknown"`` if that cannot be told; None if nobody does."""
    return _ask(path, _holder, _me())


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock."""
    return _ask(path, _holding_pid, os.getpid()) is not None


def _ask(path: Path, question: Callable[[int], _Answer | None], mine: _Answer) -> _Answer | None:
    path = path.resolve()
    with _guard:
        if path in _held:
            return mine
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return question(fd)
        finally:
            os.close(fd)


def _me() -> str:
    return f"{os.getpid()}{_here()}"


def _here() -> str:
    return f" on {os.uname().nodename}"


def _holder(fd: int) -> str | None:
    # Between taking the lock and writing its name, a holder stands under the name of the one before it, or under none.
    for _ in range(_LOOKS):
        if (pid := _holding_pid(fd)) is None:
            return None
        name = os.pread(fd, 200, 0).decode(errors="replace").strip()
        if name and (pid <= 0 or name.startswith(f"{pid} on ")):
            return name
        time.sleep(0.01)
    # A container's processes have other ids in there than out here; of this machine it can only be an old name.
    return _UNKNOWN if not name or name.endswith(_here()) else name


def _try(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holding_pid(fd: int) -> int | None:
    """The process that holds the lock, 0 or less if it cannot be seen from here (another machine); None: free."""
    # Asked without trying, since whoever tries holds the lock for that moment.
    if sys.platform == "darwin":
        found = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("qqihh", 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET))
        _, _, pid, kind, _ = struct.unpack("qqihh", found)
    else:
        found = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        kind, _, _, _, pid = struct.unpack("hhqqi", found)
    return None if kind == fcntl.F_UNLCK else pid


def _forget() -> None:
    # A forked child holds none of its parent's locks.
    global _guard
    _guard = threading.Lock()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
