"""Whether a snapshot is what was written: reading it would notice neither a flipped bit nor a missing shard."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

from pte_tracking.runs.files import sha256 as digest
from pte_tracking.runs.shards import MARKER, part, read_marker


def problem(path: Path, sha256: str | None = None, rank: int = 0, size: int = 1) -> str | None:
    """What is wrong with a snapshot; None if nothing is.

    Args:
        path: The file, or the folder of shards.
        sha256: Its digest in hexadecimal, where that is known.
        rank: Which share of the work to do.
        size: Among how many it is shared.
    """
    if path.is_dir():
        return difference(path, sha256, rank, size)
    return None if rank else (_in_zip(path) or difference(path, sha256))


def difference(path: Path, sha256: str | None, rank: int = 0, size: int = 1) -> str | None:
    """How a checkpoint, which may be any file or a folder of shards, differs from what was written; None if not.

    Args: See :func:`problem`.
    """
    is_folder = path.is_dir()
    try:
        if sha256 and digest(path / MARKER if is_folder else path) != sha256:
            return "damaged or replaced: its SHA-256 is not the one that it was written with"
        return _in_folder(path, rank, size) if is_folder else None
    except FileNotFoundError as error:
        return f"not whole, {Path(error.filename).name} is missing in it" if is_folder else "there is no such file"
    except (OSError, ValueError) as error:
        return str(error)


def _in_folder(folder: Path, rank: int, size: int) -> str | None:
    for name, expected in itertools.islice(read_marker(folder).files.items(), rank, None, size):
        found = part(folder / name)
        if found != expected:
            return f"{name} in it is damaged ({found.size} bytes, {expected.size} were written)"
    return None


def _in_zip(path: Path) -> str | None:
    if not path.is_file():
        return "there is no such file"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises a dozen kinds on damaged files
        return f"damaged, or no snapshot ({path.stat().st_size} bytes): {error}"
    return damaged and f"damaged: the checksum of its part {damaged!r} is wrong"
