"""Replacement of a directory, so that a crash leaves either the earlier one or the new one."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from pte_tracking._store.checkpoint_files import delete_checkpoint
from pte_tracking._store.files import sync_directory

_CURRENT_DIRECTORY = -100
_EXCHANGE = 2
#: Errors of a file system without this operation, such as NFS.
_UNSUPPORTED = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP))


def replace_snapshot(source: Path, target: Path) -> None:
    """Rename a snapshot, and delete the file or directory that it replaces, which is intact until then.

    Args:
        source: The new snapshot.
        target: Path of the earlier snapshot in the same directory, which may not exist.

    Raises:
        OSError: If a file cannot be renamed or deleted.
    """
    if not target.is_dir() and not source.is_dir():
        os.replace(source, target)
        return
    earlier = source
    if not target.exists():
        os.replace(source, target)
    elif not _exchange(source, target):
        earlier = _replaced_path(target)
        delete_checkpoint(earlier)
        os.rename(target, earlier)
        os.rename(source, target)
    sync_directory(target.parent)
    delete_checkpoint(earlier)


def restore_replaced(path: Path) -> None:
    """Restore a snapshot if a crash interrupted its replacement on a file system that cannot exchange two names.

    Args:
        path: Path of the snapshot.
    """
    earlier = _replaced_path(path)
    if earlier.exists() and not path.exists():
        os.rename(earlier, path)
    delete_checkpoint(earlier)


def _replaced_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names atomically. Return whether the system supports it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    if not rename(_CURRENT_DIRECTORY, paths[0], _CURRENT_DIRECTORY, paths[1], _EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
