"""Replacement of a directory, so that a crash leaves either the earlier one or the new one."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._platform.exchange import exchange_names
from pte_tracking._platform.files import replace_file, sync_directory
from pte_tracking._store.checkpoint_files import delete_checkpoint


def replace_snapshot(source: Path, target: Path) -> None:
    """Rename a snapshot, and delete the file or directory that it replaces, which is intact until then.

    Args:
        source: The new snapshot.
        target: Path of the earlier snapshot in the same directory, which may not exist.

    Raises:
        OSError: If a file cannot be renamed or deleted.
    """
    if not target.is_dir() and not source.is_dir():
        replace_file(source, target)
        return
    earlier = source
    if not target.exists():
        replace_file(source, target)
    elif not exchange_names(source, target):
        earlier = _replaced_path(target)
        delete_checkpoint(earlier)
        replace_file(target, earlier)
        replace_file(source, target)
    sync_directory(target.parent)
    delete_checkpoint(earlier)


def restore_replaced(path: Path) -> None:
    """Restore a snapshot if a crash interrupted its replacement on a file system that cannot exchange two names.

    Args:
        path: Path of the snapshot.
    """
    earlier = _replaced_path(path)
    if earlier.exists() and not path.exists():
        replace_file(earlier, path)
    delete_checkpoint(earlier)


def _replaced_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")
