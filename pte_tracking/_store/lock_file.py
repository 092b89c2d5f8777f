"""Files of locks, of which each belongs to one directory.

A backup with hard links, as ``cp -al`` makes it, shares its lock files with the run directory. A lock in one of the two
must not lock the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from pte_tracking._platform.files import open_without_links, read_at, replace_file
from pte_tracking._platform.locks import locked_directory
from pte_tracking._store.files import create_temporary

_MAX_RECORD_BYTES = 4096


class _Owner(msgspec.Struct):
    """Part of a record that identifies the directory of the lock."""

    directory: int | None = None


def open_lock_file(path: Path, is_locked: Callable[[int], bool]) -> int:
    """Open the file of a lock for writing, and create it if it does not exist.

    A file that another directory shares through hard links is replaced first, unless this directory is locked by it.

    Args:
        path: The lock file.
        is_locked: Returns whether the file of a descriptor is locked.

    Returns:
        The file descriptor.

    Raises:
        OSError: If the file cannot be created, or is a symbolic link.
    """
    fd = open_without_links(path, os.O_RDWR | os.O_CREAT)
    if os.fstat(fd).st_nlink == 1:
        return fd
    try:
        is_free = not is_locked(fd) or belongs_elsewhere(fd, path)
    except BaseException:
        os.close(fd)
        raise
    if not is_free:
        return fd
    os.close(fd)
    _replace(path)
    return open_without_links(path, os.O_RDWR | os.O_CREAT)


def belongs_elsewhere(fd: int, path: Path) -> bool:
    """Whether a lock file was written for another directory, which shares it through hard links.

    Args:
        fd: Descriptor of the lock file.
        path: Path of the lock file.
    """
    if os.fstat(fd).st_nlink == 1:
        return False
    try:
        owner = msgspec.json.decode(read_at(fd, _MAX_RECORD_BYTES, 0), type=_Owner)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return owner.directory not in (None, directory_number(path))


def directory_number(path: Path) -> int:
    """Return the number that identifies the directory of a lock file on its file system, on every host."""
    return os.stat(path.parent).st_ino


def is_current(fd: int, path: Path) -> bool:
    """Whether a path still refers to the opened lock file."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _replace(path: Path) -> None:
    """Replace a shared lock file by a new one. Processes do this one after the other."""
    with locked_directory(path.parent):
        if os.lstat(path).st_nlink > 1:
            replace_file(create_temporary(path), path)
