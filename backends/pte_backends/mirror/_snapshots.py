"""Snapshots of a run at a mirror.

Each snapshot has a folder, whose name contains its step and its digest. Its index, ``index.json``, is written last and
deleted first, so a folder without an index is not a snapshot.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from pte_backends.mirror._store import Store
from pte_tracking.sinks import (
    Checkpoint,
    RunView,
    check_file_name,
    checkpoint_digest,
    list_owned_files,
    owned_path,
)

_FOLDER = "snapshots"
_INDEX = "index.json"
_SHARD_INDEX = "snapshot.json"


class SnapshotIndex(msgspec.Struct, frozen=True):
    """Content of ``index.json``.

    Attributes:
        path: Path of the snapshot in the run directory.
        step: Number of completed iterations.
        sha256: Digest of the snapshot.
        files: Sizes of its files in bytes by name. A sharded snapshot has several.
        is_directory: Whether the snapshot is a directory of shards.
    """

    path: str
    step: int
    sha256: str
    files: dict[str, int]
    is_directory: bool


class SnapshotCopies:
    """Copies of the snapshots of a run.

    Args:
        store: Mirror.
        run: Run whose snapshots are copied.
    """

    def __init__(self, store: Store, run: RunView) -> None:
        self._store = store
        self._run = run
        #: Index by folder. None before the folders were read.
        self._known: dict[str, SnapshotIndex] | None = None

    def upload(self, event: Checkpoint) -> SnapshotIndex | None:
        """Copy the files of a snapshot, without its index.

        Args:
            event: Checkpoint event of the snapshot.

        Returns:
            The index to pass to :meth:`publish`. None if the snapshot was pruned or replaced since the event.

        Raises:
            OSError: If a file cannot be copied.
        """
        folder = _folder(self._run.id, event.step, event.sha256)
        if folder in self._indexes:
            return self._indexes[folder]
        path = owned_path(self._run.directory, event.path)
        if path is None or not _is_current(path, event):
            return None
        files, left_out = list_owned_files(self._run.directory, path)
        if left_out:
            return None
        try:
            expected = _expected_digests(path, event)
            sent = {file.name: self._store.upload(file, f"{folder}/{file.name}") for file in files}
            sizes = {file.name: file.stat().st_size for file in files}
        except FileNotFoundError:
            if not path.exists():  # pruned during the upload
                self._store.remove(folder, is_folder=True)
                return None
            raise
        if any(sent.get(name) != sha256 for name, sha256 in expected.items()):
            self._store.remove(folder, is_folder=True)
            return None
        return SnapshotIndex(event.path, event.step, event.sha256, sizes, path.is_dir())

    def publish(self, index: SnapshotIndex) -> None:
        """Write the index of a snapshot, and delete an earlier snapshot of the same path.

        Args:
            index: Index that :meth:`upload` returned.
        """
        folder = _folder(self._run.id, index.step, index.sha256)
        if folder not in self._indexes:
            self._store.write(f"{folder}/{_INDEX}", msgspec.json.format(msgspec.json.encode(index)))
            self._indexes[folder] = index
        for other, known in list(self._indexes.items()):
            if known.path == index.path and other != folder:
                self._remove(other)

    def remove(self, path: str, step: int) -> None:
        """Delete a pruned snapshot."""
        for folder, index in list(self._indexes.items()):
            if (index.path, index.step) == (path, step):
                self._remove(folder)

    def remove_after(self, step: int) -> None:
        """Delete the snapshots of later steps, which a rewind supersedes."""
        for folder, index in list(self._indexes.items()):
            if index.step > step:
                self._remove(folder)

    @property
    def _indexes(self) -> dict[str, SnapshotIndex]:
        if self._known is None:
            self._known = read_indexes(self._store, self._run.id)
        return self._known

    def _remove(self, folder: str) -> None:
        self._store.remove(f"{folder}/{_INDEX}")
        self._store.remove(folder, is_folder=True)
        self._indexes.pop(folder, None)


def read_indexes(store: Store, run_id: str) -> dict[str, SnapshotIndex]:
    """Return the indexes of the complete snapshots of a run by folder. Folders with an incomplete copy are skipped.

    Args:
        store: Mirror.
        run_id: ID of the run.
    """
    indexes = {}
    for name in store.list_folders(f"{run_id}/{_FOLDER}"):
        folder = f"{run_id}/{_FOLDER}/{name}"
        content = store.read(f"{folder}/{_INDEX}")
        try:
            if content is not None:
                indexes[folder] = msgspec.json.decode(content, type=SnapshotIndex)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return indexes


def download_snapshot(store: Store, folder: str, index: SnapshotIndex, directory: Path) -> Path:
    """Copy the files of a snapshot to a directory, without a check of their content.

    Args:
        store: Mirror.
        folder: Folder of the snapshot.
        index: Index of the snapshot.
        directory: Local directory.

    Returns:
        Path of the snapshot in the directory.

    Raises:
        ValueError: If the index names a file outside of the snapshot.
        FileNotFoundError: If a file is missing.
    """
    path = directory / Path(check_file_name(index.path, "path")).name
    for name in index.files:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise ValueError(f"the index names the file {name!r}")
        if index.is_directory:
            path.mkdir(exist_ok=True)
        store.download(f"{folder}/{name}", path / name if index.is_directory else path)
    return path


def _folder(run_id: str, step: int, sha256: str) -> str:
    return f"{run_id}/{_FOLDER}/{step:012d}-{sha256[:16]}"


def _is_current(path: Path, event: Checkpoint) -> bool:
    try:
        digest = checkpoint_digest(path)
    except (FileNotFoundError, ValueError):
        return False
    return (digest.sha256, digest.size) == (event.sha256, event.size)


def _expected_digests(path: Path, event: Checkpoint) -> dict[str, str]:
    """Return the SHA-256 of each file of a snapshot by name."""
    if not path.is_dir():
        return {path.name: event.sha256}
    shards = json.loads((path / _SHARD_INDEX).read_bytes())["files"]
    return {_SHARD_INDEX: event.sha256, **{name: digest["sha256"] for name, digest in shards.items()}}
