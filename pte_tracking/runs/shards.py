"""Snapshots that are folders of shards: whole only with their marker, which names every file in them.

``snapshot.json`` is written last. It holds the size and the SHA-256 of each other file, so its own digest stands for
the whole snapshot, as a file's digest does for one that is a single file.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import msgspec

from pte_tracking.runs import files

MARKER = "snapshot.json"
#: The file for all that is in no shard.
STATE = "state.pt"


class Part(msgspec.Struct, frozen=True):
    """One file of such a snapshot.

    Attributes:
        sha256: Its digest in hexadecimal.
        size: Its bytes.
    """

    sha256: str
    size: int


class Marker(msgspec.Struct, frozen=True):
    """What stands in the marker: every file by its name in the folder."""

    files: dict[str, Part]


def part(path: Path) -> Part:
    """What a marker says of a file."""
    return Part(files.sha256(path), path.stat().st_size)


def write_marker(folder: Path, parts: dict[str, Part]) -> None:
    """Make a folder of shards a whole snapshot."""
    content = msgspec.json.format(msgspec.json.encode(Marker(dict(sorted(parts.items())))), indent=2)
    files.write_durably(folder / MARKER, content + b"\n")


def identity(path: Path) -> Part:
    """The digest and the size of a snapshot, whether it is a file or a folder.

    Raises:
        OSError: It is not there, or not whole.
        ValueError: Its marker is damaged.
    """
    if not path.is_dir():
        return part(path)
    return Part(files.sha256(path / MARKER), sum(one.size for one in _marker(path).files.values()))


def problem(path: Path, sha256: str | None = None) -> str | None:
    """What is wrong with a snapshot; None if nothing is.

    Args:
        path: The file, or the folder.
        sha256: Its digest in hexadecimal, where that is known.
    """
    try:
        return difference(path, sha256) or (None if path.is_dir() else _in_file(path))
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        return f"{path}: {error}"


def difference(path: Path, sha256: str | None) -> str | None:
    """How a checkpoint, which may be any file or a folder of shards, differs from what was written; None if not.

    Args:
        path: The file, or the folder.
        sha256: Its digest in hexadecimal, where that is known.
    """
    if not path.exists():
        return f"{path}: missing"
    try:
        if sha256 and identity(path).sha256 != sha256:
            return f"{path}: its SHA-256 is not that of the snapshot that was written"
        return _in_folder(path) if path.is_dir() else None
    except FileNotFoundError as error:
        return f"{path}: not whole, {Path(error.filename).name} is missing in it"
    except (OSError, ValueError) as error:
        return f"{path}: {error}"


def remove(path: Path) -> None:
    """Remove a snapshot, file or folder, if it is there; half removed, a folder is none any more."""
    if path.is_dir():
        (path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _in_folder(folder: Path) -> str | None:
    for name, expected in _marker(folder).files.items():
        found = part(folder / name)
        if found != expected:
            return f"{folder}: {name} in it is damaged ({found.size} bytes, {expected.size} were written)"
    return None


def _in_file(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    return f"{path}: {broken} in it is damaged" if broken else None


def _marker(folder: Path) -> Marker:
    path = folder / MARKER
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Marker)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{MARKER} is damaged: {error}") from error
    if any(name in (".", "..") or "/" in name or "\0" in name for name in found.files):
        raise ValueError(f"{MARKER} names a file outside of the folder")
    return found
