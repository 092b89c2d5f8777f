"""Writer of an open run."""

from __future__ import annotations

import fnmatch
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from pte_tracking._delivery.inline import InlineConsumer
from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._delivery.supervisor import DeliverySupervisor, is_delivery_enabled
from pte_tracking._runs.step_tracker import StepTracker
from pte_tracking._store import events
from pte_tracking._store.checkpoints import list_checkpoints, write_checkpoint_list
from pte_tracking._store.events import AnyEvent, Checkpoint, Status
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.lock import Lock, LockedError
from pte_tracking._store.manifest import Manifest, RunNotFoundError, update_manifest

_logger = logging.getLogger("pte_tracking")


class RunPosition(TypedDict):
    """Position in a run, as stored in a snapshot.

    Attributes:
        id: ID of the run.
        name: Display name of the run.
        start_time: Time of the first start in seconds since the Unix epoch.
        step: Number of completed iterations.
        seq: Sequence number of the last event.
        position: Byte offset in the journal at which that event ends.
    """

    id: str
    name: str
    start_time: float
    step: int
    seq: int
    position: int


class RunWriter:
    """Writer of the journal that also feeds the inline sinks and supervises the delivery process.

    Args:
        directory: Run directory.
        lock: Lock of the directory. The writer releases it at the end.
        manifest: Manifest of the run.
        at: Position to which the run is rewound. None does not rewind.

    Attributes:
        manifest: Manifest of the run, including files added since.
    """

    def __init__(self, directory: Path, lock: Lock, manifest: Manifest, at: RunPosition | None) -> None:
        self.manifest = manifest
        self._directory = directory
        self._directory_lock = lock
        self._append_lock = threading.RLock()
        self._is_manifest_saved = True
        self._steps = StepTracker()
        self._journal = Journal(directory / JOURNAL)
        try:
            self._start(at)
        except BaseException:
            self._journal.close()
            raise

    def _start(self, at: RunPosition | None) -> None:
        manifest, resumed = self.manifest, self._journal.end.seq > 0
        sinks = [(entry, build_sink(entry)) for entry in manifest.sinks]
        self._inline = [InlineConsumer(self._directory, manifest, entry) for entry, sink in sinks if sink.inline]
        needs_delivery = not all(sink.inline for _, sink in sinks) and is_delivery_enabled()
        self._supervisor = DeliverySupervisor(self._directory) if needs_delivery else None
        if at:
            self._journal.rewind(JournalPosition(at["seq"], at["position"]), at["step"])
            for inline in self._inline:
                inline.catch_up()
        #: Effective checkpoints by path, kept in memory because reading a long journal takes time.
        self._checkpoints = {checkpoint.path: checkpoint for checkpoint in list_checkpoints(self._directory)}
        self.add(events.RunStarted, manifest.id, manifest.name, os.getpid(), os.uname().nodename, resumed)

    def add(self, kind: type[AnyEvent], *fields: Any) -> None:
        """Append an event to the journal and pass it to the inline sinks.

        Args:
            kind: Class of the event.
            fields: Fields of the event after ``seq`` and ``time``.
        """
        with self._append_lock:
            start = self._journal.position
            event = self._journal.append(kind, *fields)
            if event is None:
                return
            if isinstance(event, events.Metrics):
                self._steps.add(event)
            else:
                self._update_checkpoints(event)
            for inline in self._inline:
                inline.deliver_event(event, start, self._journal.position)
        if self._supervisor and event.time > self._supervisor.next_check_time:
            self._supervisor.ensure_running()

    def add_deferred(self, kind: type[AnyEvent], build_fields: Callable[[], Sequence[Any] | None]) -> None:
        """Append an event whose fields are built only by the process that writes the run.

        Args:
            kind: Class of the event.
            build_fields: Returns the fields of the event after ``seq`` and ``time``, or None to append nothing.
        """
        fields = build_fields()
        if fields is not None:
            self.add(kind, *fields)

    def position(self, step: int) -> RunPosition:
        """Return the current position after ``step`` completed iterations."""
        manifest, end = self.manifest, self._journal.end
        return RunPosition(
            id=manifest.id,
            name=manifest.name,
            start_time=manifest.start_time,
            step=step,
            seq=end.seq,
            position=end.position,
        )

    def sync(self) -> None:
        """Flush all events to disk. This method may be called while other threads add events.

        Raises:
            OSError: If the disk is full or fails.
        """
        self._journal.sync()

    def checkpoints(self) -> list[Checkpoint]:
        """Return the effective checkpoints in ascending order of their steps."""
        with self._append_lock:
            return sorted(self._checkpoints.values(), key=lambda event: event.step)

    def write_checkpoint_list(self) -> None:
        """Replace ``checkpoints.json``. A failure is logged."""
        try:
            write_checkpoint_list(self._directory, self.checkpoints())
        except OSError as error:
            _logger.error("%s: checkpoints.json was not updated: %s", self._directory, error)

    def add_files(self, pattern: str) -> None:
        """Add files at the top level of the directory to those that are archived with the run.

        Args:
            pattern: Glob. Only the first part of a path is used.
        """
        pattern = pattern.split("/")[0]
        literal, files = pattern.replace("[[]", "["), self.manifest.files
        if pattern in files or any(fnmatch.fnmatchcase(literal, known) for known in files):
            return
        self.manifest = msgspec.structs.replace(self.manifest, files=[*files, pattern])
        self._save_files()

    def finish(self, status: Status, error: str | None) -> None:
        """Append the event that ends the run.

        Args:
            status: Status at the end.
            error: Error message of a run that did not finish.
        """
        self.add(events.RunEnded, status, error)

    def close(self, status: Status, timeout: float) -> None:
        """Close the journal and the inline sinks, release the directory, and wait for the delivery process.

        Args:
            status: Status passed to :meth:`finish` before.
            timeout: Maximum number of seconds to wait for delivery.
        """
        try:
            self._journal.sync()
        except OSError as error:
            _logger.error("%s: %s", self._directory, error)
        for inline in self._inline:
            inline.finish(status)
        if not self._is_manifest_saved:
            self._save_files()
        self._journal.close()
        self._directory_lock.release()
        if self._supervisor:
            self._supervisor.wait(timeout)

    def _update_checkpoints(self, event: AnyEvent) -> None:
        if isinstance(event, Checkpoint):
            self._checkpoints[event.path] = event
        elif isinstance(event, events.CheckpointRemoved):
            self._checkpoints.pop(event.path, None)

    def _save_files(self) -> None:
        """Add the files of the run to ``run.json``. After a failure, :meth:`close` retries."""
        files = self.manifest.files
        try:
            self.manifest = update_manifest(
                self._directory,
                lambda current: msgspec.structs.replace(current, files=list(dict.fromkeys([*current.files, *files]))),
            )
            self._is_manifest_saved = True
        except (OSError, LockedError, RunNotFoundError) as error:
            self._is_manifest_saved = False
            _logger.error("%s: run.json does not list all files of the run: %s", self._directory, error)
