"""Digests, verification, and deletion of snapshots.

A snapshot is a file, or a directory if it is sharded. A checkpoint is a snapshot that is registered in the run.

A sharded snapshot is a directory. Its index, ``snapshot.json``, is written last and contains the size and the SHA-256
of every other file. The digest of the index therefore covers the complete snapshot.
"""

from __future__ import annotations

import itertools
import shutil
import zipfile
from pathlib import Path

import msgspec

from pte_tracking._store import files

SNAPSHOT_INDEX = "snapshot.json"
#: File of a sharded snapshot that contains the state outside of the shards.
STATE_FILE = "state.pt"


class FileDigest(msgspec.Struct, frozen=True):
    """Digest and size of a file.

    Attributes:
        sha256: Hexadecimal SHA-256.
        size: Size in bytes.
    """

    sha256: str
    size: int


class SnapshotIndex(msgspec.Struct, frozen=True):
    """Index of a sharded snapshot.

    Attributes:
        files: Digests of the other files by file name.
    """

    files: dict[str, FileDigest]


def digest_file(path: Path) -> FileDigest:
    """Return the digest and the size of a file."""
    return FileDigest(files.file_sha256(path), path.stat().st_size)


def write_index(directory: Path, digests: dict[str, FileDigest]) -> None:
    """Write the index of a sharded snapshot, which completes it.

    Args:
        directory: Directory of the snapshot.
        digests: Digests of all other files by file name.
    """
    content = msgspec.json.format(msgspec.json.encode(SnapshotIndex(dict(sorted(digests.items())))), indent=2)
    files.write_durably(directory / SNAPSHOT_INDEX, content + b"\n")


def checkpoint_digest(path: Path) -> FileDigest:
    """Return the digest and the size of a snapshot.

    Args:
        path: Snapshot file, or directory of a sharded snapshot.

    Returns:
        SHA-256 of the file or of the index, and the total size of the snapshot without its index.

    Raises:
        OSError: If the snapshot does not exist or has no index.
        ValueError: If the index is damaged.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import checkpoint_digest
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "snapshot")
        ...     _ = path.write_bytes(b"weights")
        ...     checkpoint_digest(path).size
        7
    """
    if not path.is_dir():
        return digest_file(path)
    return FileDigest(
        files.file_sha256(path / SNAPSHOT_INDEX), sum(digest.size for digest in read_index(path).files.values())
    )


def delete_checkpoint(path: Path) -> None:
    """Delete a snapshot if it exists.

    The index of a sharded snapshot is deleted first, so a partly deleted directory is not a snapshot.

    Args:
        path: Snapshot file, or directory of a sharded snapshot.

    Raises:
        OSError: If a file cannot be deleted.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import delete_checkpoint
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "snapshot")
        ...     path.touch()
        ...     delete_checkpoint(path)
        ...     path.exists()
        False
    """
    if path.is_dir() and not path.is_symlink():
        (path / SNAPSHOT_INDEX).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_index(directory: Path) -> SnapshotIndex:
    """Read the index of a sharded snapshot.

    Raises:
        OSError: If the index does not exist.
        ValueError: If the index is damaged.
    """
    path = directory / SNAPSHOT_INDEX
    try:
        index = msgspec.json.decode(path.read_bytes(), type=SnapshotIndex)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{SNAPSHOT_INDEX} is damaged: {error}") from error
    if any(name in (".", "..") or "/" in name or "\0" in name for name in index.files):
        raise ValueError(f"{SNAPSHOT_INDEX} names a file outside of the snapshot")
    return index


def verify_snapshot(path: Path, sha256: str | None = None, rank: int = 0, size: int = 1) -> str | None:
    """Verify that a snapshot is complete and undamaged.

    Args:
        path: Snapshot file, or directory of a sharded snapshot.
        sha256: Expected digest as returned by :func:`checkpoint_digest`. None skips the comparison.
        rank: Rank of this process. Each rank verifies a share of the files.
        size: Number of ranks that verify the snapshot.

    Returns:
        Description of the first problem, or None.
    """
    if path.is_dir():
        return verify_digest(path, sha256, rank, size)
    return None if rank else (_verify_zip(path) or verify_digest(path, sha256))


def find_truncation(path: Path, expected: int) -> str | None:
    """Return how a damaged snapshot file is truncated, or None if it is not.

    Args:
        path: Path of the snapshot. The size of a sharded snapshot is not compared.
        expected: The recorded size in bytes.
    """
    try:
        actual = expected if path.is_dir() else path.stat().st_size
    except FileNotFoundError:
        return None
    if actual >= expected:
        return None
    return f"truncated: the file has {actual:,} bytes, but {expected:,} bytes were recorded"


def verify_digest(path: Path, sha256: str | None, rank: int = 0, size: int = 1) -> str | None:
    """Verify the digest of a snapshot, or of any other file that a checkpoint refers to.

    Args:
        path: The file, or the directory of a sharded snapshot.
        sha256: Expected digest as returned by :func:`checkpoint_digest`. None skips the comparison.
        rank: Rank of this process. Each rank verifies a share of the files.
        size: Number of ranks that verify the snapshot.

    Returns:
        Description of the first problem, or None.

    Example:
        >>> import hashlib, pathlib, tempfile
        >>> from pte_tracking.sinks import verify_digest
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "snapshot")
        ...     _ = path.write_bytes(b"weights")
        ...     verify_digest(path, hashlib.sha256(b"weights").hexdigest())
        ...     print((verify_digest(path, "0" * 64) or "")[:44])
        damaged or replaced: its SHA-256 is 9a129038
    """
    is_directory = path.is_dir()
    try:
        hashed = path / SNAPSHOT_INDEX if is_directory else path
        if sha256 and (actual := files.file_sha256(hashed)) != sha256:
            return f"damaged or replaced: its SHA-256 is {actual}, but {sha256} was recorded"
        return _verify_directory(path, rank, size) if is_directory else None
    except FileNotFoundError as error:
        return f"incomplete: {Path(error.filename).name} is missing" if is_directory else "file not found"
    except (OSError, ValueError) as error:
        return str(error)


def find_archive_problem(archive: zipfile.ZipFile, size: int) -> str | None:
    """Return why an archive must not be unpacked, or None. Nothing is unpacked.

    Snapshots are not compressed and their members do not overlap, so they never unpack to more than their size.

    Args:
        archive: The archive.
        size: Size of its file in bytes.
    """
    members = archive.infolist()
    if any(member.filename.endswith("/constants.pkl") for member in members):
        return "not loaded, because it is a TorchScript program"
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            return f"not loaded, because the member {member.filename!r} is compressed, which no snapshot is"
    total = sum(member.file_size for member in members)
    if total > size:
        return f"not loaded, because the members claim {total} bytes in a file of {size} bytes"
    return None


def _verify_directory(directory: Path, rank: int, size: int) -> str | None:
    for name, expected in itertools.islice(read_index(directory).files.items(), rank, None, size):
        actual = digest_file(directory / name)
        if actual != expected:
            return f"{name} is damaged (expected {expected.size} bytes, got {actual.size})"
    return None


def _verify_zip(path: Path) -> str | None:
    if not path.is_file():
        return "file not found"
    try:
        with zipfile.ZipFile(path) as archive:
            if problem := find_archive_problem(archive, path.stat().st_size):
                return problem
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises many types of exceptions for damaged files
        try:
            size = path.stat().st_size
        except FileNotFoundError:  # The retention of a training has deleted it meanwhile.
            return "file not found"
        return f"damaged or not a snapshot ({size} bytes): {error}"
    return damaged and f"damaged: the checksum of the member {damaged!r} does not match"
