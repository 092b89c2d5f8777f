"""Snapshots that are folders of shards: whole only with their marker, which names every file in them.

``snapshot.json`` is written last. It holds the size and the SHA-256 of each other file, so its own digest stands for
the whole snapshot, as a file's digest does for one that is a single file.
"""

from __future__ import annotations

import itertools
import shutil
import zipfile
from pathlib import Path

import msgspec

from pte_tracking._store import files

SNAPSHOT_INDEX = "snapshot.json"
#: The file for all that is in no shard.
STATE_FILE = "state.pt"


class FileDigest(msgspec.Struct, frozen=True):
    """One file of such a snapshot.

    Attributes:
        sha256: Its digest in hexadecimal.
        size: Its bytes.
    """

    sha256: str
    size: int


class SnapshotIndex(msgspec.Struct, frozen=True):
    """What stands in the marker: every file by its name in the folder."""

    files: dict[str, FileDigest]


def digest_file(path: Path) -> FileDigest:
    """What a marker says of a file."""
    return FileDigest(files.file_sha256(path), path.stat().st_size)


def write_index(directory: Path, digests: dict[str, FileDigest]) -> None:
    """Make a folder of shards a whole snapshot."""
    content = msgspec.json.format(msgspec.json.encode(SnapshotIndex(dict(sorted(digests.items())))), indent=2)
    files.write_durably(directory / SNAPSHOT_INDEX, content + b"\n")


def checkpoint_digest(path: Path) -> FileDigest:
    """The digest and the size of a snapshot, whether it is a file or a folder.

    Raises:
        OSError: It is not there, or not whole.
        ValueError: Its marker is damaged.
    """
    if not path.is_dir():
        return digest_file(path)
    return FileDigest(
        files.file_sha256(path / SNAPSHOT_INDEX), sum(digest.size for digest in read_index(path).files.values())
    )


def delete_checkpoint(path: Path) -> None:
    """Remove a snapshot, file or folder, if it is there; half removed, a folder is none any more."""
    if path.is_dir():
        (path / SNAPSHOT_INDEX).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_index(directory: Path) -> SnapshotIndex:
    """What the marker says.

    Raises:
        OSError: It is not there.
        ValueError: It is damaged.
    """
    path = directory / SNAPSHOT_INDEX
    try:
        index = msgspec.json.decode(path.read_bytes(), type=SnapshotIndex)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{SNAPSHOT_INDEX} is damaged: {error}") from error
    if any(name in (".", "..") or "/" in name or "\0" in name for name in index.files):
        raise ValueError(f"{SNAPSHOT_INDEX} names a file outside of the folder")
    return index


def verify_snapshot(path: Path, sha256: str | None = None, rank: int = 0, size: int = 1) -> str | None:
    """What is wrong with a snapshot; None if nothing is.

    Args:
        path: The file, or the folder of shards.
        sha256: Its digest in hexadecimal, where that is known.
        rank: Which share of the work to do.
        size: Among how many it is shared.
    """
    if path.is_dir():
        return verify_digest(path, sha256, rank, size)
    return None if rank else (_verify_zip(path) or verify_digest(path, sha256))


def verify_digest(path: Path, sha256: str | None, rank: int = 0, size: int = 1) -> str | None:
    """How a checkpoint, which may be any file or a folder of shards, differs from what was written; None if not.

    Args: See :func:`problem`.
    """
    is_directory = path.is_dir()
    try:
        if sha256 and files.file_sha256(path / SNAPSHOT_INDEX if is_directory else path) != sha256:
            return "damaged or replaced: its SHA-256 is not the one that it was written with"
        return _verify_directory(path, rank, size) if is_directory else None
    except FileNotFoundError as error:
        return f"not whole, {Path(error.filename).name} is missing in it" if is_directory else "there is no such file"
    except (OSError, ValueError) as error:
        return str(error)


def _verify_directory(directory: Path, rank: int, size: int) -> str | None:
    for name, expected in itertools.islice(read_index(directory).files.items(), rank, None, size):
        actual = digest_file(directory / name)
        if actual != expected:
            return f"{name} in it is damaged ({actual.size} bytes, {expected.size} were written)"
    return None


def _verify_zip(path: Path) -> str | None:
    if not path.is_file():
        return "there is no such file"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises a dozen kinds on damaged files
        return f"damaged, or no snapshot ({path.stat().st_size} bytes): {error}"
    return damaged and f"damaged: the checksum of its part {damaged!r} is wrong"
