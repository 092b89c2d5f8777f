"""File locks that end with their process.

Forked children, such as the workers of a data loader, close the descriptors of locks at once. Otherwise, a lock would
outlive a killed training process while one of its workers is alive. With record locks, closing *any* descriptor of a
locked file releases the lock, so this module checks a table of the locks of this process before it opens a lock file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from pte_tracking._platform import files, locks, processes
from pte_tracking._store import lock_file

_MAX_RECORD_BYTES = 4096
_MAX_READS = 100  # of a lock file, until its holder has written its record
_READ_SECONDS = 0.01  # between two reads
_UNSUPPORTED_ERRORS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

_Result = TypeVar("_Result")

#: Locks of this process, by resolved path.
_own_locks: dict[Path, Lock] = {}
#: Descriptors that may hold a lock.
_locked_fds: set[int] = set()
#: Prevents a thread from closing a descriptor of a file that another thread is about to lock. Reentrant, because a run
#: that the garbage collector ends at any time releases its lock.
_table_lock = threading.RLock()


class LockHolder(msgspec.Struct, frozen=True):
    """Process that holds a lock, as recorded in the lock file.

    Attributes:
        pid: Process ID in the process's own PID namespace. None if the holder is unknown.
        host: Host name.
        boot_id: Identifies the machine since its last start. None if the system has no boot ID.
        pid_namespace: Identifies the PID namespace. None if the system has no PID namespaces.
        start_time: Start time of the process in clock ticks since the machine started. None if the system does not
            report the start time.
    """

    pid: Annotated[int, msgspec.Meta(gt=0)] | None = None
    host: str | None = None
    boot_id: str | None = None
    pid_namespace: str | None = None
    start_time: int | None = None

    def __str__(self) -> str:
        return "an unknown process" if self.pid is None else f"process {self.pid} on {self.host}"

    @classmethod
    def current(cls) -> LockHolder:
        """Return the record of this process."""
        pid = os.getpid()
        return cls(
            pid,
            processes.host_name(),
            processes.boot_id(),
            processes.pid_namespace(),
            processes.process_start_time(pid),
        )

    def is_local_process(self) -> bool:
        """Whether the holder runs on this machine and in this PID namespace, so it can receive a signal."""
        return (
            self.pid is not None
            and self.shares_process_ids(LockHolder.current())
            and self.start_time == processes.process_start_time(self.pid)
        )

    def has_ended(self) -> bool:
        """Whether the holder ran on this machine and in this PID namespace, and has ended."""
        return self.shares_process_ids(LockHolder.current()) and not self.is_local_process()

    def shares_process_ids(self, other: LockHolder) -> bool:
        """Whether both holders run on the same machine and in the same PID namespace."""
        own = (self.host, self.boot_id, self.pid_namespace)
        return own == (other.host, other.boot_id, other.pid_namespace)


class LockedError(RuntimeError):
    """Raised when a live process, possibly this process, holds a lock.

    Attributes:
        holder: The process that holds the lock.
        is_own_process: Whether this process holds the lock.
    """

    def __init__(self, path: Path, holder: LockHolder) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.holder = holder
        self.is_own_process = holder == LockHolder.current()


class Lock:
    """Lock that this process holds from construction until :meth:`release`.

    Args:
        path: The lock file. Its parent directory must exist.
        timeout: Time to wait for the lock, in seconds.

    Raises:
        LockedError: If another live process, or this process, holds the lock.
        OSError: If the file system has no locks, or the lock file cannot be written or is a symbolic link.
    """

    def __init__(self, path: Path, timeout: float = 0.0) -> None:
        self._path = _real_path(path, strict=True)  # otherwise, realpath() ignores an OSError of a signal handler
        deadline = time.monotonic() + timeout
        try:
            while (other := self._acquire()) is not None:
                if time.monotonic() > deadline:
                    raise LockedError(path, other)
                time.sleep(0.01)
        except BaseException:  # an interrupt after the lock was acquired
            self.release()
            raise

    def _acquire(self) -> LockHolder | None:
        """Try to acquire the lock once. Return the other holder, or None on success."""
        with _table_lock:
            if self._path in _own_locks:
                return LockHolder.current()
            self._fd = lock_file.open_lock_file(self._path, _is_locked)
            _locked_fds.add(self._fd)
            try:
                other = self._lock_or_find_holder()
                if other is None and not lock_file.is_current(self._fd, self._path):
                    other = LockHolder()  # a process replaced the file before this one locked it
                if other is not None:
                    self._close()
                    return other
                self._write_record()
            except BaseException:
                self._close()
                raise
            _own_locks[self._path] = self
            return None

    def _write_record(self) -> None:
        content = msgspec.structs.asdict(LockHolder.current()) | {"directory": lock_file.directory_number(self._path)}
        record = msgspec.json.encode(content) + b"\n"
        # Overwriting before truncating keeps the block of the file, which may be the last one on a full disk.
        files.write_at(self._fd, record, 0)
        os.ftruncate(self._fd, len(record))

    def _lock_or_find_holder(self) -> LockHolder | None:
        try:
            for _ in range(_MAX_READS):
                if locks.try_lock(self._fd):
                    return None
                if other := _holder(self._fd):
                    return other
            return LockHolder()
        except OSError as error:
            if error.errno in _UNSUPPORTED_ERRORS:
                raise OSError(
                    f"{self._path.parent}: this file system does not support file locks ({error.strerror}). Locks "
                    "prevent two processes from writing to one directory. Choose a directory on another file system, "
                    "such as a local disk, or mount this one with locks (Lustre: option flock)."
                ) from None
            raise

    def release(self) -> None:
        """Release the lock. The file remains, because removing it would let two processes lock files of one name."""
        with _table_lock:
            if _own_locks.get(self._path) is self:
                del _own_locks[self._path]
                self._close()

    def _close(self) -> None:
        _locked_fds.discard(self._fd)
        os.close(self._fd)


def holder(path: Path) -> LockHolder | None:
    """Return the process that holds a lock.

    Args:
        path: The lock file.

    Returns:
        The holder, with ``pid=None`` if the holder is unknown. None if the lock is free.
    """
    return _query(path, _holder, LockHolder.current())


def is_held(path: Path) -> bool:
    """Whether a process holds the lock."""
    return _query(path, locks.holding_pid, os.getpid()) is not None


def is_held_here(path: Path) -> bool:
    """Whether this process holds the lock."""
    return _real_path(path) in _own_locks


def release_here(path: Path) -> None:
    """Release the lock if this process holds it, because an interrupt kept its owner from keeping it."""
    if own := _own_locks.get(_real_path(path)):
        own.release()


def _query(path: Path, query: Callable[[int], _Result | None], own_result: _Result) -> _Result | None:
    path = _real_path(path)
    with _table_lock:
        if path in _own_locks:
            return own_result
        try:
            fd = files.open_without_links(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return None if lock_file.belongs_elsewhere(fd, path) else query(fd)
        except OSError as error:
            if error.errno in _UNSUPPORTED_ERRORS:  # no process holds a lock
                return None
            raise
        finally:
            os.close(fd)


def _real_path(path: Path, *, strict: bool = False) -> Path:
    return Path(os.path.realpath(path.parent, strict=strict), path.name)


def _holder(fd: int) -> LockHolder | None:
    # Until a new holder has written its record, the file contains the record of the previous holder, or none.
    for _ in range(_MAX_READS):
        if (pid := locks.holding_pid(fd)) is None:
            return None
        recorded = _read_record(fd)
        if recorded is not None and (recorded.pid == pid or (pid <= 0 and not recorded.has_ended())):
            return recorded
        time.sleep(_READ_SECONDS)
    # The IDs of a process differ between PID namespaces. In this namespace, a record with another ID is an old one.
    if recorded is None or recorded.shares_process_ids(LockHolder.current()):
        return LockHolder()
    return recorded


def _read_record(fd: int) -> LockHolder | None:
    try:
        recorded = msgspec.json.decode(files.read_at(fd, _MAX_RECORD_BYTES, 0), type=LockHolder)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if recorded.pid is None else recorded


def _is_locked(fd: int) -> bool:
    try:
        return locks.holding_pid(fd) is not None
    except OSError as error:
        if error.errno in _UNSUPPORTED_ERRORS:
            return False
        raise


def _forget_locks() -> None:
    # A forked child does not inherit the locks of its parent.
    global _table_lock
    _table_lock = threading.RLock()
    _own_locks.clear()
    for fd in _locked_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    _locked_fds.clear()


processes.after_fork_in_child(_forget_locks)
