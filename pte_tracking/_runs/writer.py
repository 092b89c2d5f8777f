"""The record of a run while a process writes it: what is added here goes on to the sinks that are written at once."""

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
from pte_tracking._store import events
from pte_tracking._store.checkpoints import list_checkpoints, write_checkpoint_list
from pte_tracking._store.events import AnyEvent, Checkpoint, Status
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.lock import Lock, LockedError
from pte_tracking._store.manifest import Manifest, RunNotFoundError, update_manifest

_logger = logging.getLogger("pte_tracking")


class RunPosition(TypedDict):
    """A point in a run's life, as a snapshot keeps it: the run's identity, the iterations done, and the last event."""

    id: str
    name: str
    start_time: float
    step: int
    seq: int
    position: int


class RunWriter:
    """An open journal, and all that follows from what is added to it.

    Args:
        directory: The run's directory.
        lock: Its lock, given up at the end.
        manifest: What its ``run.json`` holds.
        at: Go on from this point of the run, taking back what came after.
    """

    def __init__(self, directory: Path, lock: Lock, manifest: Manifest, at: RunPosition | None) -> None:
        self.manifest = manifest
        self._directory = directory
        self._directory_lock = lock
        self._append_lock = threading.RLock()
        self._is_manifest_saved = True
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
        #: Those that hold, by path: the journal, which may be long, is read for them once.
        self._checkpoints = {checkpoint.path: checkpoint for checkpoint in list_checkpoints(self._directory)}
        self.add(events.RunStarted, manifest.id, manifest.name, os.getpid(), os.uname().nodename, resumed)

    def add(self, kind: type[AnyEvent], *fields: Any) -> None:
        """Add an event.

        Args:
            kind: Its class.
            fields: Its fields after ``seq`` and ``time``.
        """
        with self._append_lock:
            start = self._journal.position
            event = self._journal.append(kind, *fields)
            if event is None:
                return
            if kind is not events.Metrics:
                self._update_checkpoints(event)
            for inline in self._inline:
                inline.deliver_event(event, start, self._journal.position)
        if self._supervisor and event.time > self._supervisor.next_check_time:
            self._supervisor.ensure_running()

    def add_deferred(self, kind: type[AnyEvent], build_fields: Callable[[], Sequence[Any] | None]) -> None:
        """Add an event whose fields are costly to build.

        Args:
            kind: Its class.
            build_fields: Returns its fields after ``seq`` and ``time``, or None to add no event.
        """
        fields = build_fields()
        if fields is not None:
            self.add(kind, *fields)

    def position(self, step: int) -> RunPosition:
        """This moment, after ``step`` iterations."""
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
        """Make everything added so far durable. Any thread may do it while others add.

        Raises:
            OSError: The disk is full or broken.
        """
        self._journal.sync()

    def checkpoints(self) -> list[Checkpoint]:
        """The snapshots that hold, by step."""
        with self._append_lock:
            return sorted(self._checkpoints.values(), key=lambda event: event.step)

    def write_checkpoint_list(self) -> None:
        """Bring their list for people and scripts up to date."""
        try:
            write_checkpoint_list(self._directory, self.checkpoints())
        except OSError as error:
            _logger.error("%s: the list of checkpoints was not written: %s", self._directory, error)

    def add_files(self, pattern: str) -> None:
        """Say that files at the top of the directory belong to the run; see :meth:`.run.Run.own`."""
        pattern = pattern.split("/")[0]
        literal, files = pattern.replace("[[]", "["), self.manifest.files
        if pattern in files or any(fnmatch.fnmatchcase(literal, known) for known in files):
            return
        self.manifest = msgspec.structs.replace(self.manifest, files=[*files, pattern])
        self._save_files()

    def finish(self, status: Status, error: str | None) -> None:
        """Add the event that ends the run.

        Args:
            status: How it ended.
            error: What it failed with, for people.
        """
        self.add(events.RunEnded, status, error)

    def close(self, status: Status, timeout: float) -> None:
        """Close it, after :meth:`finish`.

        Args:
            status: How.
            timeout: Seconds that it waits for the backends at most.
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
        """Bring the files that belong to the run into ``run.json``; where that fails, it is tried again at the end."""
        files = self.manifest.files
        try:
            self.manifest = update_manifest(
                self._directory,
                lambda current: msgspec.structs.replace(current, files=list(dict.fromkeys([*current.files, *files]))),
            )
            self._is_manifest_saved = True
        except (OSError, LockedError, RunNotFoundError) as error:
            self._is_manifest_saved = False
            _logger.error("%s: run.json does not name all files of the run: %s", self._directory, error)
