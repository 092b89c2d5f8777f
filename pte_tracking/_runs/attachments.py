"""Pictures and artifacts of a run, stored in its directory."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from pte_tracking._store.files import safe_file_name, write_atomically
from pte_tracking._store.layout import ARTIFACTS
from pte_tracking._store.values import check_key

_logger = logging.getLogger("pte_tracking")


def save_picture(directory: Path, folder: str, key: str, step: int, png: bytes) -> str | None:
    """Put a picture into the run's directory; returns its relative path."""
    path = Path(folder, safe_file_name(key), f"step_{step}.png")
    try:
        (directory / path.parent).mkdir(parents=True, exist_ok=True)
        write_atomically(directory / path, png)
    except OSError as error:
        _logger.error("%s was not kept: %s", path, error)
        return None
    return path.as_posix()


def keep_artifact(directory: Path, source: Path, artifact_path: str) -> str | None:
    """Copy a file or folder into the run's directory unless it is there; returns its relative path."""
    if not source.exists():
        raise FileNotFoundError(f"path: {str(source)!r} does not exist")
    if directory not in source.parents:
        target = directory / ARTIFACTS / artifact_path / source.name
        try:
            _copy(source, target)
        except OSError as error:
            _logger.error("%s was not kept: %s", source, error)
            return None
        source = target
    return relative_path(directory, source)


def relative_path(directory: Path, path: str | os.PathLike[str]) -> str:
    """A path of a file in the run's directory, relative to it."""
    whole = Path(os.path.abspath(directory / path))
    if directory not in whole.parents:
        raise ValueError(f"path: {str(path)!r} is not in the run's directory {str(directory)!r}")
    return check_key(whole.relative_to(directory).as_posix(), "path")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
