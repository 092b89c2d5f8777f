"""Record of the provenance of a session, in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pte_tracking._runs.attachments import save_content
from pte_tracking._store.events import Artifact, Provenance, RunStarted
from pte_tracking._store.git import GitState, read_git
from pte_tracking._store.journal_reader import find_events
from pte_tracking._store.layout import JOURNAL, PROVENANCE
from pte_tracking._store.lock import LockedError
from pte_tracking._store.manifest import Manifest, RunNotFoundError, update_manifest
from pte_tracking._store.owned_files import owned_path
from pte_tracking._store.packages import list_packages
from pte_tracking._store.provenance import (
    Level,
    describe_git,
    describe_process,
    describe_session,
    source_folders,
    to_facts,
)

_logger = logging.getLogger("pte_tracking")
_GIT_SECONDS = 10.0
_END_SECONDS = 3.0


class ProvenanceRecorder:
    """Thread that records the provenance of a session.

    Git and the list of packages take tenths of a second, and a large repository on a network file system more.

    Args:
        directory: Run directory.
        level: How much is recorded.
        add: Appends an event to the journal.
        can_write: Returns whether files may be written to the run directory.
    """

    def __init__(self, directory: Path, level: Level, add: Callable[..., None], can_write: Callable[[], bool]) -> None:
        self._directory, self._level, self._add, self._can_write = directory, level, add, can_write
        self._folders = source_folders()
        self._lock = threading.RLock()
        self._is_recorded = False
        self._facts: dict[str, str] = {}
        self._packages = ""
        self._git: GitState | None = None
        self._thread = threading.Thread(target=self._run, name="pte-provenance", daemon=True)

    def start(self) -> None:
        """Start the thread, after the journal contains the start of the session. Only the first call has an effect."""
        if self._level == "off" or self._thread.ident is not None:
            return
        try:
            self._thread.start()
        except RuntimeError as error:  # the limit of threads, or the end of the interpreter
            _logger.warning("%s: the provenance was not recorded: %s", self._directory, error)

    def finish(self) -> None:
        """Wait until the provenance is recorded. After three seconds, record what is known."""
        if self._thread.ident is None:
            return
        self._thread.join(_END_SECONDS)
        self._record_once("Git or the file system did not answer before the run ended")

    def _run(self) -> None:
        try:
            self._collect()
        except Exception as error:  # Training never fails because of tracking.
            self._record_once(f"{type(error).__name__}: {error}")

    def _collect(self) -> None:
        self._facts = describe_process() | describe_session()
        for folder in self._folders:  # at once, because the files may be edited while the training runs
            if self._git is None:
                self._git = read_git(folder, self._directory, _GIT_SECONDS, has_diff=self._level == "full")
        self._packages = list_packages()
        self._record_once(self._git.failure if self._git else "")

    def _record_once(self, failure: str) -> None:
        with self._lock:
            if self._is_recorded:
                return
            self._is_recorded = True
            try:
                self._record(failure)
            except Exception as error:  # Training never fails because of tracking.
                _logger.warning("%s: the provenance was not recorded: %s", self._directory, error)

    def _record(self, failure: str) -> None:
        journal = self._directory / JOURNAL
        # A rewind repeats the start of its session, with the same time.
        starts = len({event.time for event, _ in find_events(journal, RunStarted)})
        earlier = max(
            (event for event, _ in find_events(journal, Provenance)), key=lambda event: event.seq, default=None
        )
        git = self._git
        values = describe_git(git) if git else {}
        if failure:
            _logger.warning("%s: the provenance is incomplete: %s.", self._directory, failure)
            values["failure"] = failure
        if git and git.is_truncated:
            values["git_diff"] = "truncated"
        values |= self._facts | to_facts({"directory": self._folders[-1] if self._folders else "", "starts": starts})
        contents = {"requirements.txt": self._packages.encode(errors="replace")}
        if git:
            contents |= {"diff.txt": git.diff, "untracked.txt": git.untracked}
        files = {
            name: path for name, content in contents.items() if (path := self._save(name, content, starts, earlier))
        }
        for path in files.values():
            self._add(Artifact, path, str(Path(path).parent))
        self._add(Provenance, values, files)
        if earlier:
            self._compare(earlier.values, values)
        elif starts == 1 and git:
            self._add_to_manifest(describe_git(git))

    def _save(self, name: str, content: bytes, starts: int, earlier: Provenance | None) -> str | None:
        """Write a file, unless an earlier session has written it. Return its path, or None."""
        if not content or not self._can_write():
            return None
        known = earlier.files.get(name) if earlier else None
        if known and (path := owned_path(self._directory, known)) and path.is_file() and path.read_bytes() == content:
            return known
        return save_content(self._directory, Path(PROVENANCE, f"start_{starts}", name), content)

    def _compare(self, earlier: dict[str, str], current: dict[str, str]) -> None:
        before, now = earlier.get("git_commit"), current.get("git_commit")
        if before and now and before != now:
            _logger.warning(
                "%s: the run continues with other code: commit %s, before that %s.",
                *(self._directory, _describe_commit(current), _describe_commit(earlier)),
            )

    def _add_to_manifest(self, values: dict[str, str]) -> None:
        def add(manifest: Manifest) -> Manifest:
            return msgspec.structs.replace(manifest, context=manifest.context | values)

        if not self._can_write():
            return
        try:
            update_manifest(self._directory, add)
        except (OSError, LockedError, RunNotFoundError) as error:
            _logger.warning("%s: run.json was not updated: %s", self._directory, error)


def is_provenance_file(event: Any) -> bool:
    """Whether an event is a file that describes the origin of a session."""
    return isinstance(event, Artifact) and event.path.startswith(f"{PROVENANCE}/")


def _describe_commit(values: dict[str, str]) -> str:
    branch = f" ({values['git_branch']})" if "git_branch" in values else ""
    return f"{values['git_commit'][:10]}{branch}{' with changes' if values.get('git_dirty') == 'true' else ''}"
