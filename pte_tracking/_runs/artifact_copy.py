"""Copy of a file or directory, without the entries that cannot be copied."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def copy_artifact(source: Path, target: Path) -> list[str]:
    """Copy a file or directory.

    A link to a file is copied as the file, wherever it leads. A link to a directory is left out: it could lead out of
    the directory, or back into it. An existing directory is kept, and its files are replaced.

    Args:
        source: File or directory, or a link to it.
        target: Path of the copy.

    Returns:
        Descriptions of the entries that are left out, such as ``"data (link to nothing)"``.

    Raises:
        OSError: If the source itself cannot be read, or if the copy cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        _copy_file(source, target)
        return []
    left_out: list[str] = []
    _copy_entries(source, target, os.listdir(source), "", left_out)
    return left_out


def _copy_entries(source: Path, target: Path, names: list[str], prefix: str, left_out: list[str]) -> None:
    target.mkdir(exist_ok=True)
    for name in sorted(names):
        entry = source / name
        try:
            reason = _reason_to_omit(entry)
            children = os.listdir(entry) if reason is None and entry.is_dir() else None
        except OSError as error:
            reason, children = error.strerror or str(error), None
        if reason is not None:
            left_out.append(f"{prefix}{name} ({reason})")
        elif children is None:
            _copy_file(entry, target / name)
        else:
            _copy_entries(entry, target / name, children, f"{prefix}{name}/", left_out)


def _reason_to_omit(entry: Path) -> str | None:
    """Return why an entry cannot be copied.

    Raises:
        OSError: If the entry cannot be read.
    """
    is_link = entry.is_symlink()
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return "link to nothing" if is_link else "no longer exists"
    if stat.S_ISDIR(mode):
        return "link to a directory" if is_link else None
    if not stat.S_ISREG(mode):
        return "neither a file nor a directory"
    with open(entry, "rb"):
        return None


def _copy_file(source: Path, target: Path) -> None:
    # An earlier copy may be read-only, and a delivery process may be reading it.
    target.unlink(missing_ok=True)
    shutil.copy2(source, target)
