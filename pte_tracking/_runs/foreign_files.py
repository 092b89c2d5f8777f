"""Files of other programs in the directory of a new run."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
from pathlib import Path

from pte_tracking._platform.files import replace_file, sync_directory
from pte_tracking._store.files import make_durable_directory
from pte_tracking._store.layout import PREVIOUS, WRITER_LOCK

_logger = logging.getLogger("pte_tracking")


class ForeignFiles:
    """Files that were in the directory before a run started. Those that the run would overwrite are set aside.

    Args:
        directory: The run directory, without an earlier run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names = set(os.listdir(directory)) - {PREVIOUS, WRITER_LOCK}
        self._target: Path | None = None

    def move_matching(self, pattern: str) -> None:
        """Move the files that match a pattern of the run to a directory in ``previous/``.

        A directory is moved only if the pattern contains a wildcard, as that of sharded snapshots does. A script may
        have created another directory for its own files.

        Args:
            pattern: Glob of a file at the top of the directory, or the path of a file below it.
        """
        first, *rest = pattern.split("/")
        for name in sorted(fnmatch.filter(self._names, first)):
            path = self._directory / name
            if rest and path.is_dir():
                path = path / re.sub(r"\[([*?[])\]", r"\1", "/".join(rest))  # as glob.escape() escaped it
            if path.is_file() or (path.is_dir() and not rest and _has_wildcard(first)):
                self._move(path)

    def _move(self, path: Path) -> None:
        name = path.relative_to(self._directory)
        if self._target is None:
            self._target = _free_directory(self._directory)
        target = self._target / name
        make_durable_directory(target.parent)
        replace_file(path, target)
        # A new file of this name must not become durable before the move.
        sync_directory(target.parent)
        sync_directory(path.parent)
        self._names.discard(name.as_posix())
        _logger.info("%s was not written by this run and was moved to %s.", path, target)


def _has_wildcard(pattern: str) -> bool:
    return glob.has_magic(re.sub(r"\[[*?[]\]", "", pattern))


def _free_directory(directory: Path) -> Path:
    number = 1
    while (target := directory / PREVIOUS / f"other-files-{number}").exists():
        number += 1
    return target
