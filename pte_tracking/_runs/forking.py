"""Fork of a run: a new run that starts with the effective history of its parent up to a snapshot.

The directory of the parent is named by a snapshot, which may come from elsewhere. It is read only if it belongs to the
user and contains the run of the snapshot, and no link in it is followed.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from pte_tracking._platform.files import is_own, replace_file, sync_directory, sync_file
from pte_tracking._platform.processes import host_name
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.provenance_recorder import is_provenance_file
from pte_tracking._store import event_encoding, events
from pte_tracking._store.events import AnyEvent, Artifact, MediaFile, Params, RunStarted, Scalar
from pte_tracking._store.files import create_temporary
from pte_tracking._store.journal_reader import read, read_effective, seq_at
from pte_tracking._store.layout import ARTIFACTS, FIGURES, IMAGES, JOURNAL, MEDIA, PREVIOUS, RESERVED_NAMES
from pte_tracking._store.manifest import Manifest, ParentRun
from pte_tracking._store.owned_files import make_owned_directory
from pte_tracking._store.values import to_text

_logger = logging.getLogger("pte_tracking")

#: Events that describe the process or the files of the parent.
_OWN_EVENTS = (
    RunStarted,
    events.Provenance,
    events.RunEnded,
    events.Rewound,
    events.Checkpoint,
    events.CheckpointRemoved,
    events.Model,
    events.FirstBatch,
)


class Fork:
    """Start of a new run at a position of another run.

    Args:
        position: Position in the parent, as stored in a snapshot.
        params: Parameters of the fork, which replace those of the parent.

    Attributes:
        parent: Description of the parent.
    """

    def __init__(self, position: RunPosition, params: Mapping[str, Scalar]) -> None:
        self._position = position
        self._params = params
        self._directory = _find_directory(position)
        directory, name = to_text(str(position.get("directory", ""))), to_text(str(position["name"]))
        has_history = self._directory is not None
        self.parent = ParentRun(to_text(str(position["id"])), name, directory, int(position["step"]), has_history)

    def tags(self) -> dict[str, str]:
        """Return the tags that name the parent."""
        return {"forked_from": self.parent.id, "forked_at_step": str(self.parent.step)}

    def log_start(self, directory: Path) -> None:
        """Log that the new run starts with the history of its parent, or that this history is missing.

        Args:
            directory: Run directory of the new run.
        """
        parent = self.parent
        if parent.has_history:
            _logger.info(
                "%s: starts a new run with the history of the run %s up to step %d.",
                directory,
                parent.name,
                parent.step,
            )
            return
        _logger.warning(
            "%s: starts a new run at step %d. The earlier rows are missing, because %r does not contain the run %s of "
            "the snapshot.",
            directory,
            parent.step,
            parent.directory,
            parent.name,
        )

    def copy_history(self, target: Path, manifest: Manifest) -> list[str]:
        """Write the journal of the fork: its start, and the effective history of the parent up to the position.

        Args:
            target: Directory of the fork, which has no journal.
            manifest: Manifest of the fork.

        Returns:
            File names of the JSON logs in the history.

        Raises:
            OSError: If the journal cannot be read or written.
        """
        temporary = create_temporary(target / JOURNAL)
        logs = set()
        try:
            with open(temporary, "wb") as file:
                start = RunStarted(1, time.time(), manifest.id, manifest.name, os.getpid(), host_name())
                file.write(event_encoding.encode(start))
                for seq, event in enumerate(self._history(target), 2):
                    file.write(event_encoding.encode(msgspec.structs.replace(event, seq=seq)))
                    if isinstance(event, events.Metrics) and event.log is not None:
                        logs.add(event.log)
            sync_file(temporary)
            replace_file(temporary, target / JOURNAL)
            sync_directory(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return sorted(logs)

    def _history(self, target: Path) -> Iterator[AnyEvent]:
        parent = self._directory
        if parent is None:
            return
        for event, _ in read_effective(parent / JOURNAL, self._position["position"]):
            if isinstance(event, _OWN_EVENTS) or is_provenance_file(event):
                continue
            if isinstance(event, Params):
                values = {key: self._params.get(key, value) for key, value in event.values.items()}
                yield msgspec.structs.replace(event, values=values)
            elif not isinstance(event, MediaFile | Artifact):
                yield event
            elif path := _copy(parent, target, event.path):
                yield msgspec.structs.replace(event, path=path)
            else:
                _logger.warning("%s: %r of the parent run was not copied.", target, event.path)


def _find_directory(position: RunPosition) -> Path | None:
    """Return the directory of the run of a snapshot, also if the run was archived.

    Returns:
        The directory. None if it does not exist, belongs to another user, or contains another run, or if the position
        is not in the journal.
    """
    directory = Path(str(position.get("directory", "")))
    if not directory.is_absolute():
        return None
    candidates = (directory, directory / PREVIOUS / str(position["id"]))
    return next((path for path in candidates if _contains(path, position)), None)


def _contains(directory: Path, position: RunPosition) -> bool:
    """Whether a directory contains the run of a position, and this user owns it."""
    journal = directory / JOURNAL
    try:
        if os.path.realpath(directory) != str(directory) or not _is_own_file(journal):
            return False
        first = next(read(journal), None)
        is_run = first is not None and isinstance(first[0], RunStarted) and first[0].run_id == position["id"]
        return is_run and seq_at(journal, position["position"]) == position["seq"]
    except (OSError, TypeError, ValueError):  # the snapshot may contain anything
        return False


def _is_own_file(path: Path) -> bool:
    status, folder = path.lstat(), path.parent.lstat()
    return stat.S_ISREG(status.st_mode) and is_own(status.st_uid) and is_own(folder.st_uid)


def _copy(parent: Path, target: Path, name: str) -> str | None:
    """Copy a file or directory of the parent without following links. Return its path in the fork, or None."""
    source = parent / name
    first = PurePosixPath(name).parts[0]
    is_reserved = first in RESERVED_NAMES - {FIGURES, IMAGES, MEDIA, ARTIFACTS}
    try:
        if is_reserved or os.path.realpath(source) != str(source) or not source.exists():
            return None
        # A file at the top of the directory may be that of another program, and a figure may be logged twice.
        copied = name if first in RESERVED_NAMES else f"{ARTIFACTS}/{name}"
        path = target / copied
        make_owned_directory(path.parent, target)
        if source.is_dir():
            shutil.copytree(source, path, ignore=_links, dirs_exist_ok=True)
        elif source.is_file():
            path.unlink(missing_ok=True)
            shutil.copyfile(source, path, follow_symlinks=False)
        else:
            return None
    except (OSError, shutil.Error):
        return None
    return copied


def _links(folder: str, names: list[str]) -> set[str]:
    """Return the names of links, pipes, and other entries that are neither files nor directories."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return {name for name, mode in modes.items() if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)}
