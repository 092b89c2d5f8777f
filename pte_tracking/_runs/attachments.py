"""Store figures, images, and artifacts in a run directory."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from pte_tracking._runs.artifact_copy import copy_artifact
from pte_tracking._store.files import absolute_path, write_atomically
from pte_tracking._store.layout import ARTIFACTS
from pte_tracking._store.owned_files import make_owned_directory
from pte_tracking._store.values import check_key

_logger = logging.getLogger("pte_tracking")

_MAX_NAMES = 5


def save_content(directory: Path, path: Path, content: bytes) -> str | None:
    """Write a file into a run directory.

    Args:
        directory: Run directory.
        path: Path relative to the run directory.
        content: Content of the file.

    Returns:
        Path relative to the run directory. None if writing failed, which is logged.
    """
    try:
        make_owned_directory(directory / path.parent, directory)
        write_atomically(directory / path, content)
    except OSError as error:
        _logger.error("%s was not saved: %s", directory / path, error)
        return None
    return path.as_posix()


def read_media_file(path: str | os.PathLike[str], name: str) -> bytes:
    """Read a file that the user named.

    Args:
        path: Path of the file.
        name: Name of the event in messages.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it is no file.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"{name}: the file {str(path)!r} does not exist")
    if not source.is_file():
        raise ValueError(f"{name}: expected a file, got {str(path)!r}, which is a directory, pipe, socket, or device")
    return source.read_bytes()


class ArtifactContent(contextlib.ExitStack):
    """Content of an artifact, which the end of a ``with`` block deletes if it is a temporary copy.

    Attributes:
        path: File or directory.
    """

    path: Path


def read_artifact(source: Path, directory: Path, *, is_held: bool) -> ArtifactContent:
    """Return the content of an artifact.

    Args:
        source: File or directory.
        directory: Run directory.
        is_held: Whether the artifact is stored later. Then it is copied to a temporary directory, unless it is located
            in the run directory.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If ``source`` is neither a file nor a directory.
    """
    if not source.exists():
        raise FileNotFoundError(f"path: {str(source)!r} does not exist")
    if not source.is_file() and not source.is_dir():
        raise ValueError(f"path: expected a file or directory, got {str(source)!r}, which is a pipe, socket, or device")
    content = ArtifactContent()
    content.path = source
    if is_held and directory not in source.parents:
        folder = content.enter_context(tempfile.TemporaryDirectory(prefix="pte-artifact-"))
        content.path = Path(folder, source.name)
        _copy(source, content.path)
    return content


def keep_artifact(directory: Path, source: Path, artifact_path: str) -> str | None:
    """Copy a file or directory into a run directory unless it is located there.

    Args:
        directory: Run directory.
        source: File or directory to copy.
        artifact_path: Subdirectory below ``artifacts`` to which it is copied.

    Returns:
        Path relative to the run directory. None if copying failed, which is logged.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
    """
    if not source.exists():
        raise FileNotFoundError(f"path: {str(source)!r} does not exist")
    if directory not in source.parents:
        target = directory / ARTIFACTS / artifact_path / source.name
        try:
            make_owned_directory(target.parent, directory)
            _copy(source, target)
        except OSError as error:
            _logger.error("%s was not copied into the run: %s", source, error)
            return None
        source = target
    return relative_path(directory, source)


def relative_path(directory: Path, path: str | os.PathLike[str]) -> str:
    """Return a path relative to a run directory.

    Raises:
        TypeError: If ``path`` is not a path.
        ValueError: If ``path`` is not in the run directory.
    """
    whole = absolute_path(directory / path, directory)
    if directory not in whole.parents:
        raise ValueError(f"path: {str(path)!r} is not in the run directory {str(directory)!r}")
    return check_key(whole.relative_to(directory).as_posix(), "path")


def _copy(source: Path, target: Path) -> None:
    left_out = copy_artifact(source, target)
    if left_out:
        more = f" and {len(left_out) - _MAX_NAMES} more" if len(left_out) > _MAX_NAMES else ""
        _logger.warning(
            "The copy of artifact %r in the run lacks: %s%s. To keep these entries, log them separately.",
            str(source),
            ", ".join(left_out[:_MAX_NAMES]),
            more,
        )
