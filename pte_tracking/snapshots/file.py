"""The file of a snapshot: published whole and durable or not at all, and read only after it was checked.

One whose tensors lie in shards is a folder, of which this reads the rest (see :mod:`pte_tracking.snapshots.shards`).
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pte_tracking.runs.files import sync_directory, sync_file
from pte_tracking.runs.shards import MARKER, STATE, Part, part, problem
from pte_tracking.snapshots.errors import SnapshotError


def write(path: Path, state: Mapping[str, Any]) -> Part:
    """Write a state so that after a crash at any moment there is the whole new file under its name, or what was there.

    Raises:
        OSError: The disk is full or broken. Nothing is left behind.
    """
    temporary = temporary_path(path)
    try:
        written = save(temporary, state)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return written


def save(path: Path, state: Mapping[str, Any]) -> Part:
    """Write a state under its final name or a temporary one, and wait until it is on the disk.

    Raises:
        OSError: The disk is full or broken.
    """
    try:
        torch.save(state, path)
    except RuntimeError as error:  # torch's stream knows not what went wrong
        free = shutil.disk_usage(path.parent).free
        raise OSError(f"torch could not write {path.name} ({free / 1e6:.0f} MB are free): {error}") from error
    sync_file(path)
    return part(path)


def temporary_path(path: Path) -> Path:
    """Where a snapshot is written before it is published. A killed process may leave it."""
    return path.with_name(f".{path.name}.tmp")


def verify(path: Path, sha256: str | None = None) -> None:
    """Check that a file, or a folder of shards, is as it was written; ``torch.load`` would notice no flipped bit.

    Args:
        path: The file.
        sha256: Its digest, where known.

    Raises:
        SnapshotError: It is not there, or damaged, or no snapshot.
    """
    if path.is_dir():
        if trouble := problem(path, sha256):
            raise SnapshotError(path, trouble.removeprefix(f"{path}: "))
        return
    if not path.is_file():
        raise SnapshotError(path, "there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            names = archive.namelist()
    except Exception as error:  # zipfile raises a dozen kinds on damaged files
        size = path.stat().st_size
        raise SnapshotError(path, f"damaged, or no snapshot ({size} bytes): {error}") from error
    if damaged is not None:
        raise SnapshotError(path, f"damaged: the checksum of its part {damaged!r} is wrong")
    if any(name.endswith("/constants.pkl") for name in names):
        raise SnapshotError(path, "a TorchScript program, no snapshot; programs are not loaded")
    if sha256 is not None and part(path).sha256 != sha256:
        raise SnapshotError(path, f"damaged or replaced: its SHA-256 is not {sha256}, as when it was written")


def load(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Check a file and read it. Nothing in it is ever executed, whoever made it.

    Args:
        path: The file.
        sha256: Its digest, where known.

    Returns:
        The state, its tensors on the CPU.

    Raises:
        SnapshotError: It is not there, damaged, no snapshot, or holds more than tensors and plain values.
    """
    verify(path, sha256)
    return _read(path, mmap=False)


def peek(path: Path) -> dict[str, Any]:
    """Read all but the content of tensors, without a check: fast, and good for a look at what it says of itself.

    Raises:
        SnapshotError: It cannot be read.
    """
    return _read(path, mmap=True)


def is_snapshot(path: Path) -> bool:
    """Whether there is a file, or a whole folder of shards, by its looks."""
    return path.is_file() or (path / MARKER).is_file()


def _read(path: Path, mmap: bool) -> dict[str, Any]:
    try:
        state = torch.load(path / STATE if path.is_dir() else path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise SnapshotError(
            path, f"not loaded: it is no snapshot, or holds more than tensors and plain values: {reason}"
        ) from error
    if not isinstance(state, dict):
        raise SnapshotError(path, f"no snapshot: it holds a {type(state).__name__}, not a dictionary")
    return state
