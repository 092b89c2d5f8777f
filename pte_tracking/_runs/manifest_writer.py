"""Writer of the manifest of an open run."""

from __future__ import annotations

import fnmatch
import logging
from threading import RLock
from typing import Literal

import msgspec

from pte_tracking._runs.archiving import LOG, expand_patterns
from pte_tracking._runs.directory import Claim
from pte_tracking._runs.serial_calls import SerialCalls
from pte_tracking._store.lock import LockedError
from pte_tracking._store.manifest import RunNotFoundError, Sampling, update_manifest
from pte_tracking._store.samples import SAMPLES
from pte_tracking._store.signal_errors import raise_from_signal_handler

_logger = logging.getLogger("pte_tracking")


class ManifestWriter(SerialCalls):
    """Base class of the writer of a run that adds files, the ranking, and the sampling to its manifest.

    Args:
        claim: Claim of the directory, which was prepared.
        lock: Lock that is held during a call.

    Attributes:
        manifest: Manifest of the run, including files added since.
    """

    def __init__(self, claim: Claim, lock: RLock) -> None:
        super().__init__(lock)
        self.manifest = claim.manifest
        self._directory = claim.directory
        self._directory_lock = claim.lock
        self._place = claim.place
        self._is_move_logged = False
        self._foreign = claim.foreign
        self._is_manifest_saved = True

    def add_files(self, pattern: str, *, is_written: bool = False) -> None:
        """Add files at the top level of the directory to those that are archived with the run.

        Args:
            pattern: Glob. Only the first part of a path is used.
            is_written: Whether the files were written for the run. Otherwise, files of other programs are set aside.
        """
        if self._has_moved():
            return
        if self._foreign and not is_written:
            for_logs = [known for known in self.manifest.files if LOG in known]
            for expanded in expand_patterns([pattern, *for_logs]):
                self._foreign.move_matching(expanded)
        pattern = pattern.split("/")[0]
        literal, files = pattern.replace("[[]", "["), self.manifest.files
        if pattern in files or any(fnmatch.fnmatchcase(literal, known) for known in files):
            return
        self.manifest = msgspec.structs.replace(self.manifest, files=[*files, pattern])
        self._save_files()

    def set_ranking(self, key: str, mode: Literal["min", "max"]) -> None:
        """Store the metric by which the snapshots are ranked in ``run.json``. A failure is logged.

        Args:
            key: Name of the metric.
            mode: ``"min"`` if the lowest value is the best, ``"max"`` if the highest.
        """
        if self.manifest.ranking == (key, mode):
            return
        self.manifest = msgspec.structs.replace(self.manifest, ranking=(key, mode))
        self._save_files()

    def set_sampling(self, sampling: Sampling) -> None:
        """Store a request to sample system metrics in ``run.json``. A failure is logged.

        Args:
            sampling: The request.
        """
        if self._has_moved():
            return
        files = dict.fromkeys([*self.manifest.files, SAMPLES])
        self.manifest = msgspec.structs.replace(self.manifest, sampling=sampling, files=list(files))
        self._save_files()

    def _has_moved(self) -> bool:
        """Whether the path of the directory refers to another one, so no file is written by path."""
        if self._place.is_current():
            return False
        if not self._is_move_logged:
            self._is_move_logged = True
            _logger.error(self._place.moved_message)
            self._stop_inline_sinks()
        return True

    def _stop_inline_sinks(self) -> None:
        """Stop the sinks that write files by path."""

    def _save_files(self) -> None:
        """Add files, ranking, and sampling of the run to ``run.json``. After a failure, :meth:`close` retries."""
        if self._has_moved():
            return
        saved = self.manifest
        try:
            self.manifest = update_manifest(
                self._directory,
                lambda current: msgspec.structs.replace(
                    current,
                    files=list(dict.fromkeys([*current.files, *saved.files])),
                    ranking=saved.ranking,
                    sampling=saved.sampling,
                ),
            )
            self._is_manifest_saved = True
        except (OSError, LockedError, RunNotFoundError) as error:
            self._is_manifest_saved = False
            raise_from_signal_handler(error)
            _logger.error("%s: run.json was not updated: %s", self._directory, error)
