"""Write snapshot files atomically, and read them after verification.

A sharded snapshot is a directory. This module reads the part of it that is not sharded; see
:mod:`pte_tracking._snapshots.shards`.
"""

from __future__ import annotations

import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._platform.files import replace_file, sync_directory, sync_file
from pte_tracking._snapshots.content_size import find_excess
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._store.checkpoint_files import (
    SNAPSHOT_INDEX,
    STATE_FILE,
    FileDigest,
    delete_checkpoint,
    digest_file,
    find_archive_problem,
    verify_snapshot,
)
from pte_tracking._store.replacing import replace_snapshot

#: What torch's safe loader refuses, such as "GLOBAL io.open".
_UNSUPPORTED = re.compile(r"(GLOBAL [\w.]+)")
#: End of the pickle instruction that names the class.
_BYTE_ARRAY = b"\nbytearray\n"


def write(path: Path, state: Mapping[str, Any]) -> FileDigest:
    """Write a snapshot file atomically: after a crash, either the complete new file or the previous one exists.

    Args:
        path: Path of the file. A sharded snapshot at this path is replaced.
        state: The plain state.

    Returns:
        The digest of the file.

    Raises:
        OSError: If the disk is full or the file cannot be written. The temporary file is deleted.
    """
    temporary = temporary_path(path)
    try:
        digest = save(temporary, state)
        if is_snapshot(path):
            replace_snapshot(temporary, path)
        else:
            replace_file(temporary, path)
    except BaseException:
        delete_checkpoint(temporary)
        raise
    sync_directory(path.parent)
    return digest


def save(path: Path, state: Mapping[str, Any]) -> FileDigest:
    """Write a state to a file and flush the file to disk.

    Args:
        path: Path of the file, final or temporary.
        state: The plain state.

    Returns:
        The digest of the file.

    Raises:
        OSError: If the disk is full or the file cannot be written.
    """
    path.unlink(missing_ok=True)  # A crash may have left it, and a link is not followed.
    path.touch(exist_ok=False)
    try:
        torch.save(state, path)
    except RuntimeError as error:  # torch does not report the cause
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"torch failed to write {path.name}, {free / 1e6:.1f} MB of the disk are free: {str(error).splitlines()[0]}"
        ) from error
    sync_file(path)
    return digest_file(path)


def temporary_path(path: Path) -> Path:
    """Return the path that a snapshot is written to before it is renamed. A crash can leave this file."""
    return path.with_name(f".{path.name}.tmp")


def load(path: Path, sha256: str | None = None, world: World = SINGLE_PROCESS) -> dict[str, Any]:
    """Verify and read a snapshot. Nothing in it is executed, even if it is malicious.

    Args:
        path: Path of the snapshot file, or of its directory if it is sharded.
        sha256: The expected digest. None: only the checksums in the snapshot are verified.
        world: The ranks, which all call this. Each verifies some of the shards, and rank 0 reads the state.

    Returns:
        The state, with its tensors on the CPU. Sharded tensors have no content.

    Raises:
        SnapshotError: If the snapshot does not exist, is damaged, is not a snapshot, or contains anything other than
            tensors and plain values.
    """

    def check() -> tuple[str | None, dict[str, Any]]:
        problem = verify_snapshot(path, sha256, world.rank, world.size)
        try:
            return problem, {} if problem or world.rank else _read(path, mmap=False)
        except SnapshotError as error:
            return error.reason, {}

    topic = f"verification of {path.name}"
    problem, state = world.run_on_all_ranks(topic, check)
    for rank, rank_problem in enumerate(world.all_gather(topic, problem)):
        if rank_problem:
            raise SnapshotError(path, rank_problem if world.is_single_process else f"{rank_problem} (on rank {rank})")
    return world.run_on_rank_zero(topic, lambda: state)


def peek(path: Path) -> dict[str, Any]:
    """Read a snapshot without verification and without loading the content of its tensors. This is fast.

    Args:
        path: Path of the snapshot.

    Returns:
        The state. Its tensors are mapped from the file.

    Raises:
        SnapshotError: If the snapshot cannot be read.
    """
    return _read(path, mmap=True)


def is_snapshot(path: Path) -> bool:
    """Return whether a path is a file or a directory with a snapshot index. The content is not verified."""
    return path.is_file() or (path / SNAPSHOT_INDEX).is_file()


def _read(path: Path, mmap: bool) -> dict[str, Any]:
    state_file = path / STATE_FILE if path.is_dir() else path
    try:
        problem = _find_problem(state_file)
        state = None if problem else torch.load(state_file, map_location="cpu", weights_only=True, mmap=mmap)
        size = _total_size(path)
    except FileNotFoundError:  # The retention of a training may delete the snapshot at any time.
        raise SnapshotError(path, "file not found") from None
    except pickle.UnpicklingError as error:
        # The message of torch explains how to load the file without protection. It is not repeated.
        match = _UNSUPPORTED.search(str(error))
        found = f": {match[1]}" if match else ""
        raise SnapshotError(
            path, f"not loaded, because it contains more than tensors and plain values{found}. Use another snapshot."
        ) from None
    except zipfile.BadZipFile as error:
        raise SnapshotError(path, f"damaged or not a snapshot: {error}") from error
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise SnapshotError(
            path, f"not loaded, because it is not a snapshot or contains more than tensors and plain values: {reason}"
        ) from error
    if problem:
        raise SnapshotError(path, problem)
    if not isinstance(state, dict):
        raise SnapshotError(path, f"not a snapshot: it contains a {type(state).__name__} instead of a dictionary")
    if excess := find_excess(state, size):
        raise SnapshotError(path, excess)
    return state


def _total_size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _find_problem(path: Path) -> str | None:
    """Return why a file must not be loaded, or None. Its tensors are not read."""
    with zipfile.ZipFile(path) as archive:
        if problem := find_archive_problem(archive, path.stat().st_size):
            return problem
        # torch's safe loader would create a byte array of any size that the file names.
        pickles = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        has_buffer = any(_BYTE_ARRAY in content for content in pickles)
    return "not loaded, because it contains more than tensors and plain values: bytearray" if has_buffer else None
