"""Files: access at a position, replacement, links, and owners."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path

#: Whether a file or directory can be renamed while a process has it or a file in it open.
CAN_MOVE_OPEN_FILES = sys.platform != "win32"
_MAX_REPLACE_ATTEMPTS = 100  # on Windows, where a process that reads a file prevents its replacement
_REPLACE_PAUSE_SECONDS = 0.01
#: Windows has no function that moves to a position and reads, writes, or locks there.
position_lock = threading.Lock()


def read_at(fd: int, size: int, position: int) -> bytes:
    """Read bytes at a position of a file.

    Args:
        fd: File descriptor.
        size: Maximum number of bytes.
        position: Byte offset.

    Returns:
        The bytes, fewer than ``size`` at the end of the file.

    Raises:
        OSError: If the file cannot be read.

    Example:
        >>> import os, pathlib, tempfile
        >>> from pte_tracking.sinks import open_owned, read_at, write_at
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     descriptor = open_owned(pathlib.Path(directory, "data"), pathlib.Path(directory))
        ...     _ = write_at(descriptor, b"abc", 0)
        ...     print(read_at(descriptor, 10, 1))
        ...     os.close(descriptor)
        b'bc'
    """
    if sys.platform != "win32":
        return os.pread(fd, size, position)
    with position_lock:
        os.lseek(fd, position, os.SEEK_SET)
        return os.read(fd, size)


def write_at(fd: int, data: bytes | bytearray | memoryview, position: int) -> int:
    """Write bytes at a position of a file.

    Args:
        fd: File descriptor.
        data: The bytes.
        position: Byte offset.

    Returns:
        Number of bytes written, fewer than those of ``data`` if the disk is full.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> import os, pathlib, tempfile
        >>> from pte_tracking.sinks import open_owned, write_at
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     descriptor = open_owned(pathlib.Path(directory, "data"), pathlib.Path(directory))
        ...     print(write_at(descriptor, b"abc", 0))
        ...     os.close(descriptor)
        3
    """
    if sys.platform != "win32":
        return os.pwrite(fd, data, position)
    with position_lock:
        os.lseek(fd, position, os.SEEK_SET)
        return os.write(fd, data)


def replace_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a file or directory atomically. A file, or an empty directory, at the target is replaced.

    On Windows, no process may have either file open. The call waits a second for other processes.

    Args:
        source: Existing path.
        target: New path on the same file system.

    Raises:
        OSError: If the file cannot be renamed.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import replace_file
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     source, target = pathlib.Path(directory, "new"), pathlib.Path(directory, "log")
        ...     source.touch()
        ...     replace_file(source, target)
        ...     source.exists(), target.exists()
        (False, True)
    """
    if sys.platform == "win32":
        for _ in range(_MAX_REPLACE_ATTEMPTS):
            try:
                os.replace(source, target)
                return
            except PermissionError:
                time.sleep(_REPLACE_PAUSE_SECONDS)
    os.replace(source, target)


def open_without_links(path: Path, flags: int) -> int:
    """Open a file with flags of :func:`os.open`. Raise OSError if it is a symbolic link."""
    if sys.platform != "win32":
        # Without O_NONBLOCK, opening a named pipe waits for another process.
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags | os.O_BINARY, 0o666)


def sync_file(path: Path) -> None:
    """Flush a written file to disk. Windows requires permission to write it."""
    with open(path, "r+b" if sys.platform == "win32" else "rb") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Flush a directory to disk, so that renames and new files in it are durable.

    Windows cannot flush directories, so a rename may be lost with the power there.

    Args:
        directory: Directory to flush.

    Raises:
        OSError: If the directory does not exist or the disk fails.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import sync_directory
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     pathlib.Path(directory, "new").touch()
        ...     sync_directory(pathlib.Path(directory))
    """
    if sys.platform == "win32":
        os.stat(directory)
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush a directory
            raise
    finally:
        os.close(descriptor)


def is_own(owner: int) -> bool:
    """Whether the user ID of a file is that of this process. Always true on Windows, which has no user IDs."""
    return sys.platform == "win32" or owner == os.geteuid()


def user_id() -> str:
    """Return the user ID of this process as text. Empty on Windows."""
    if sys.platform == "win32":
        return ""
    return str(os.getuid())
