"""Writer of an open run."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pte_tracking._delivery.end_wait import EndWait
from pte_tracking._delivery.inline import InlineConsumer
from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._delivery.supervisor import DeliverySupervisor, is_delivery_enabled
from pte_tracking._platform.processes import host_name
from pte_tracking._runs.directory import Claim
from pte_tracking._runs.manifest_writer import ManifestWriter
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.provenance_recorder import ProvenanceRecorder
from pte_tracking._runs.row_history import RowHistory
from pte_tracking._runs.step_end import KeptPoints, StepEnd
from pte_tracking._store import events
from pte_tracking._store.checkpoints import list_checkpoints, write_checkpoint_list
from pte_tracking._store.events import AnyEvent, Checkpoint, Metrics, Number, RunEnded, Scalar, Status
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Sampling
from pte_tracking._store.provenance import provenance_level
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.signal_errors import raise_from_signal_handler
from pte_tracking._store.values import to_text

_logger = logging.getLogger("pte_tracking")
_MAX_ENDS = 3  # attempts to append the end of the run as the last event
_T = TypeVar("_T")


class RunWriter(ManifestWriter):
    """Writer of the journal that also feeds the inline sinks and supervises the delivery process.

    A writer that starts at an earlier position first appends without a rewind. :meth:`rewind` supersedes the events
    after the position, and then repeats the events that were added before.

    Args:
        claim: Claim of the directory, which was prepared. The writer releases its lock at the end.

    Attributes:
        end_wait: Waits for the delivery process after :meth:`close`. None if all sinks are inline.
    """

    def __init__(self, claim: Claim) -> None:
        level = "off" if claim.is_reopened else provenance_level()
        self._journal = Journal(claim.directory / JOURNAL, claim.target)
        super().__init__(claim, self._journal.lock)
        last, _ = last_event(claim.directory / JOURNAL)
        #: End of a run that keeps its status. None if the status is that of this session.
        self._kept_end = last if isinstance(last, RunEnded) and (claim.at or claim.is_reopened) else None
        self._rewind_target = claim.at  # position of the pending rewind
        #: Events of this session before the pending rewind.
        self._unrewound_events: list[AnyEvent] = []
        #: Points that are not logged a second time. None unless the run was resumed at a step.
        self._kept_points: KeptPoints | None = None
        self._start_position = self._journal.end
        self._provenance = ProvenanceRecorder(claim.directory, level, self.add, lambda: not self._has_moved())
        try:
            self._open_sinks()
        except BaseException:
            self._journal.close()
            raise

    def _open_sinks(self) -> None:
        sinks = [(entry, build_sink(entry)) for entry in self.manifest.sinks]
        self._inline = [
            InlineConsumer(self._directory, self.manifest, entry, self._place) for entry, sink in sinks if sink.inline
        ]
        needs_delivery = not all(sink.inline for _, sink in sinks) and is_delivery_enabled()
        self._supervisor = DeliverySupervisor(self._directory, self._place) if needs_delivery else None
        self.end_wait = EndWait(self._supervisor, self.manifest.id) if self._supervisor else None
        self._load_checkpoints()

    def _load_checkpoints(self) -> None:
        """Read the effective checkpoints, which are kept in memory because reading a long journal takes time."""
        checkpoints = list_checkpoints(self._directory)
        self._checkpoints = {checkpoint.path: checkpoint for checkpoint in checkpoints}
        self._rows = RowHistory(checkpoints[-1].values if checkpoints else {})

    def set_sampling(self, sampling: Sampling) -> None:
        """Store a request to sample system metrics, and start a delivery process, also if all sinks are inline.

        Args:
            sampling: The request.
        """
        super().set_sampling(sampling)
        if self._supervisor is None and is_delivery_enabled():
            self._supervisor = DeliverySupervisor(self._directory, self._place)
        if self._supervisor:
            self._supervisor.ensure_running()

    def begin(self, params: Mapping[str, Scalar], tags: Mapping[str, str], *, is_started: bool = False) -> None:
        """Append the events that start a session.

        Args:
            params: Parameters of the session.
            tags: Tags of the session.
            is_started: Whether the journal contains the start of the session, as that of a fork.
        """
        manifest, resumed = self.manifest, self._start_position.seq > 0
        if not is_started:
            self.add(events.RunStarted, manifest.id, manifest.name, os.getpid(), host_name(), resumed)
        if not resumed:
            self._journal.make_durable()
        if params:
            self.add(events.Params, params)
        if tags:
            self.add(events.Tags, tags)
        self._provenance.start()

    def rewind(self) -> None:
        """Return the run to the position of the claim, once. Events that were added before are repeated after it."""
        with self._exclusive():
            at, self._rewind_target, self._kept_end = self._rewind_target, None, None
            repeated, self._unrewound_events = self._unrewound_events, []
            target = JournalPosition(at["seq"], at["position"]) if at else self._start_position
            if at is not None and target != self._start_position:
                self._rewind_to(target, at["step"], repeated)

    def replace_end(self) -> None:
        """End the run with the status of this session, although it was opened again without an iteration."""
        self._kept_end = None

    def resume_at(self, step: int) -> None:
        """Supersede the events of later steps; see :meth:`pte_tracking.Run.resume_at`."""
        with self._exclusive():
            end = StepEnd.find(self._directory / JOURNAL, step, self._start_position.seq)
            self._rewind_target, self._kept_end, self._unrewound_events = None, None, []
            self._kept_points = end.points
            if end.target is not None:
                self._rewind_to(end.target, step, end.kept)
        _logger.info(
            "%s: resumed at step %d. Superseded events of later steps: %d.", self._directory, step, end.superseded
        )

    def _rewind_to(self, target: JournalPosition, step: int, repeated: Sequence[AnyEvent]) -> None:
        """Supersede the events after a position, and repeat some of them."""
        if not self._journal.rewind(target, step):
            return
        for event in repeated:
            self._journal.repeat(event)
        for inline in self._inline:
            inline.catch_up()
        self._load_checkpoints()
        for event in repeated:
            self._note(event)

    def add(self, kind: type[AnyEvent], *fields: Any, at: float | None = None) -> None:
        """Append an event to the journal and pass it to the inline sinks.

        A signal handler or a logging handler may call this method while another call is in progress. Its event is then
        appended when that call ends.

        Args:
            kind: Class of the event.
            fields: Fields of the event after ``seq`` and ``time``.
            at: Time of the event in seconds since the Unix epoch. Defaults to the current time.
        """
        if self._is_busy:
            self._defer(functools.partial(self.add, kind, *fields, at=time.time() if at is None else at))
            return
        with self._append_lock:
            self._is_busy = True
            try:
                if self._kept_points and not (fields := self._kept_points.without_known(kind, fields)):
                    return
                start = (journal := self._journal).position
                event = journal.append_locked(kind, fields, at)
                if event is None:
                    return
                if self._rewind_target:
                    self._unrewound_events.append(event)
                if kind is Metrics:
                    self._rows.add(event)  # type: ignore[arg-type]
                else:
                    self._note(event)
                for inline in self._inline:
                    inline.deliver_event(event, start, journal.position)
            finally:
                self._is_busy = False
                if self._deferred:
                    self._run_deferred()
        now = event.time if at is None else time.time()
        if self._supervisor and not self._supervisor.check_time < now < self._supervisor.next_check_time:
            self._supervisor.ensure_running()

    def add_deferred(
        self,
        kind: type[AnyEvent],
        render: Callable[[], _T],
        store: Callable[[_T], Sequence[Any] | None],
        at: float | None = None,
    ) -> None:
        """Append an event whose content is rendered and stored only by the process that writes the run.

        Args:
            kind: Class of the event.
            render: Returns the content.
            store: Stores the content in the run directory. Returns the fields of the event after ``seq`` and ``time``,
                or None to append nothing.
            at: Time of the event in seconds since the Unix epoch. Defaults to the current time.
        """
        content = render()
        if not self._has_moved() and (fields := store(content)) is not None:
            self.add(kind, *fields, at=at)

    def latest_values(self) -> dict[str, Number]:
        """Return the metrics that were logged last, by key, independent of their steps."""
        with self._append_lock:
            return self._rows.latest_values()

    def recent_values(self, key: str) -> dict[int, Number]:
        """Return the values of a metric in the newest rows of this session by step."""
        with self._append_lock:
            return self._rows.recent_values(key)

    def position(self, step: int) -> RunPosition:
        """Return the current position after ``step`` completed iterations, or that of the pending rewind.

        Raises:
            RuntimeError: If the directory was moved, replaced, or deleted.
        """
        self._place.check()
        if self._rewind_target:
            return {**self._rewind_target, "step": step}
        manifest, end = self.manifest, self._journal.end
        return RunPosition(
            id=manifest.id,
            name=manifest.name,
            start_time=manifest.start_time,
            step=step,
            seq=end.seq,
            position=end.position,
            directory=to_text(str(self._directory)),
        )

    def sync(self) -> None:
        """Flush all events to disk. This method may be called while other threads add events.

        Raises:
            OSError: If the disk is full or fails.
            RuntimeError: If the directory was moved, replaced, or deleted.
        """
        self._place.check()
        self._journal.sync()

    def checkpoints(self) -> list[Checkpoint]:
        """Return the effective checkpoints in ascending order of their steps."""
        with self._append_lock:
            return sorted(self._checkpoints.values(), key=lambda event: event.step)

    def write_checkpoint_list(self) -> None:
        """Replace ``checkpoints.json``. A failure is logged."""
        if self._has_moved():
            return
        written = None
        try:
            # Each snapshot extension has its own thread, which may meanwhile have written a newer list.
            while written != (current := self.checkpoints()):
                write_checkpoint_list(self._directory, current)
                written = current
        except OSError as error:
            raise_from_signal_handler(error)
            _logger.error("%s: checkpoints.json was not updated: %s", self._directory, error)

    def finish(self, status: Status, error: str | None) -> Status:
        """Append the event that ends the run. A run that was opened again without an iteration keeps its status.

        Args:
            status: Status at the end.
            error: Error message of a run that did not finish.

        Returns:
            The status with which the run ends.
        """
        if self._kept_end:
            status, error = self._kept_end.status, self._kept_end.error
        self._provenance.finish()
        for _ in range(_MAX_ENDS):
            seq = self._journal.end.seq
            self.add(events.RunEnded, status, error and mask_secrets(error))
            if self._journal.end.seq <= seq + 1:  # otherwise, a signal handler added an event meanwhile
                break
        return status

    def close(self, status: Status) -> None:
        """Close the journal and the inline sinks, and release the directory.

        Args:
            status: Status that :meth:`finish` returned.
        """
        if self._is_nested():  # a signal handler interrupted a call
            self._defer(functools.partial(self.close, status))
            return
        try:
            self._journal.sync()
        except OSError as error:
            raise_from_signal_handler(error)
            _logger.error("%s: %s", self._directory, error)
        self._has_moved()
        for inline in self._inline:
            inline.finish(status)
        if not self._is_manifest_saved:
            self._save_files()
        self.release()

    def release(self) -> None:
        """Close the journal and release the directory. Has no effect after :meth:`close`."""
        self._journal.close()
        self._directory_lock.release()

    def wait(self, timeout: float) -> None:
        """Wait for the delivery process after :meth:`close`.

        Args:
            timeout: Maximum number of seconds to wait.
        """
        if self._is_nested():
            self._defer(functools.partial(self.wait, timeout))
        elif self.end_wait:
            self.end_wait.wait(timeout)

    def _stop_inline_sinks(self) -> None:
        for inline in self._inline:
            inline.stop()

    def _note(self, event: AnyEvent) -> None:
        """Remember a row, a checkpoint, or the removal of one."""
        if isinstance(event, Metrics):
            self._rows.add(event)
        elif isinstance(event, Checkpoint):
            self._checkpoints[event.path] = event
        elif isinstance(event, events.CheckpointRemoved):
            self._checkpoints.pop(event.path, None)
