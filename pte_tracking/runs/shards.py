"""Snapshots that are folders of shards: whole only with their marker, which names every file in them.

``snapshot.json`` is written last. It holds the size and the SHA-256 of each other file, so its own digest stands for
the whole snapshot, as a file's digest does for one that is a single file.
"""

from __future__ import annotations

import shutil
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
    return Part(files.sha256(path / MARKER), sum(one.size for one in read_marker(path).files.values()))


def remove(path: Path) -> None:
    """Remove a snapshot, file or folder, if it is there; half removed, a folder is none any more."""
    if path.is_dir():
        (path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_marker(folder: Path) -> Marker:
    """What the marker says.

    Raises:
        OSError: It is not there.
        ValueError: It is damaged.
    """
    path = folder / MARKER
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Marker)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{MARKER} is damaged: {error}") from error
    if any(name in (".", "..") or "/" in name or "\0" in name for name in found.files):
        raise ValueError(f"{MARKER} names a file outside of the folder")
    return found
