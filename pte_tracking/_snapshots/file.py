"""The file of a snapshot: published whole and durable or not at all, and read only after it was checked.

One whose tensors lie in shards is a folder, of which this reads the rest (see :mod:`pte_tracking._snapshots.shards`).
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._store.checkpoint_files import (
    SNAPSHOT_INDEX,
    STATE_FILE,
    FileDigest,
    delete_checkpoint,
    digest_file,
    verify_snapshot,
)
from pte_tracking._store.files import sync_directory, sync_file


def write(path: Path, state: Mapping[str, Any]) -> FileDigest:
    """Write a state so that after a crash at any moment there is the whole new file under its name, or what was there.

    Raises:
        OSError: The disk is full or broken. Nothing is left behind.
    """
    temporary = temporary_path(path)
    try:
        digest = save(temporary, state)
        if path.is_dir() and is_snapshot(path):  # in shards, by more ranks; no file can take the place of a folder
            delete_checkpoint(path)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return digest


def save(path: Path, state: Mapping[str, Any]) -> FileDigest:
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
    return digest_file(path)


def temporary_path(path: Path) -> Path:
    """Where a snapshot is written before it is published. A killed process may leave it."""
    return path.with_name(f".{path.name}.tmp")


def load(path: Path, sha256: str | None = None, world: World = SINGLE_PROCESS) -> dict[str, Any]:
    """Check a file, or a folder of shards, and read it. Nothing in it is ever executed, whoever made it.

    Args:
        path: The file.
        sha256: Its digest, where known.
        world: The ranks that all call this: each checks some of the shards, and rank 0 reads.

    Returns:
        The state, its tensors on the CPU.

    Raises:
        SnapshotError: It is not there, damaged, no snapshot, or holds more than tensors and plain values.
    """

    def check() -> tuple[str | None, dict[str, Any]]:
        problem = verify_snapshot(path, sha256, world.rank, world.size)
        try:
            return problem, {} if problem or world.rank else _read(path, mmap=False)
        except SnapshotError as error:
            return error.reason, {}

    topic = f"the check of {path.name}"
    problem, state = world.run_on_all_ranks(topic, check)
    for rank, rank_problem in enumerate(world.all_gather(topic, problem)):
        if rank_problem:
            raise SnapshotError(path, rank_problem if world.is_single_process else f"{rank_problem} (says rank {rank})")
    return world.run_on_rank_zero(topic, lambda: state)


def peek(path: Path) -> dict[str, Any]:
    """Read all but the content of tensors, without a check: fast, and good for a look at what it says of itself.

    Raises:
        SnapshotError: It cannot be read.
    """
    return _read(path, mmap=True)


def is_snapshot(path: Path) -> bool:
    """Whether there is a file, or a whole folder of shards, by its looks."""
    return path.is_file() or (path / SNAPSHOT_INDEX).is_file()


def _read(path: Path, mmap: bool) -> dict[str, Any]:
    state_file = path / STATE_FILE if path.is_dir() else path
    try:
        is_program = _is_program(state_file)
        state = None if is_program else torch.load(state_file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise SnapshotError(
            path, f"not loaded: it is no snapshot, or holds more than tensors and plain values: {reason}"
        ) from error
    if is_program:
        raise SnapshotError(path, "a TorchScript program, no snapshot; programs are not loaded")
    if not isinstance(state, dict):
        raise SnapshotError(path, f"no snapshot: it holds a {type(state).__name__}, not a dictionary")
    return state


def _is_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
