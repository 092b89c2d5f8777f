"""Delivery of the journal to one sink."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from pte_tracking._delivery.backend_connection import BackendConnection
from pte_tracking._delivery.batch import Batch, Delivered, read_batch, split_events
from pte_tracking._delivery.cursor import Cursor, CursorStore, describe_error
from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._delivery.hidden_kinds import HiddenKinds
from pte_tracking._delivery.history_reader import HistoryReader
from pte_tracking._delivery.refusals import Refusals
from pte_tracking._delivery.run_view import JournalRunView
from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._store import journal_reader
from pte_tracking._store.events import AnyEvent, Metrics, Rewound, RunStarted, Status
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.signal_errors import raise_from_signal_handler
from pte_tracking.sinks import UNLIMITED, Limits, SinkClosedError

_logger = logging.getLogger("pte_tracking")


class SinkConsumer:
    """Delivers the journal of a run to one sink.

    Args:
        directory: Absolute path of the run directory.
        manifest: Manifest of the run.
        entry: Entry of the sink in the manifest.

    Attributes:
        key: Key of the sink in the run.
        cursor: Position and state of the sink.
        is_inline: Whether the training process writes the sink.
        is_closed: Whether the backend accepts no events of this run. A new consumer tries again to deliver them.
        uses_shared_server: Whether many runs write to the server of the sink.

    Raises:
        ValueError: If the sink is not installed, or does not accept the options of its entry.
    """

    def __init__(self, directory: Path, manifest: Manifest, entry: SinkEntry) -> None:
        self.key = entry.key
        self._sink = build_sink(entry)
        self.is_inline = self._sink.inline
        self.uses_shared_server = self._sink.uses_shared_server
        self._store = CursorStore(directory, self.key, is_durable=self._sink.inline)
        self._journal = directory / JOURNAL
        self._filter = EventFilter(self.key, entry.name, self._sink.limits, self._sink.shows)
        self._view = JournalRunView(directory, manifest, self._filter)
        self._reader = HistoryReader(self._journal)
        self._connection = BackendConnection(self._sink, self._view)
        #: Error of the last attempt, which is logged only once. None after a successful attempt.
        self._logged_error: str | None = None
        self._is_poll_failing = False
        self._refusals = Refusals(self.key)
        self._hidden_kinds = HiddenKinds(self.key, self._sink)
        self._accepts_everything = self._sink.limits == Limits(separate_logs=True, batch_values=UNLIMITED)
        self.is_closed = False
        self._restore()

    @property
    def has_postponed(self) -> bool:
        """Whether files of delivered events wait for the backend."""
        return bool(self.cursor.postponed)

    def deliver_next(self) -> Delivered | None:
        """Deliver the next batch.

        Returns:
            The delivered batch, or None if there are no pending events.

        Raises:
            Exception: If the write failed. The caller retries later.
        """
        if self.cursor.closed_reason and not self.is_closed:
            self.verify()
        start, end = self.cursor.position, self._journal.stat().st_size
        if self.is_closed or end <= start:
            return None
        if start < self.cursor.batch_end < end:
            end = self.cursor.batch_end
        rewound, start, end = self._reader.next_range(start, end)
        if rewound:
            self._save_batch_end(start)
            start_time = time.monotonic()
            self._apply_rewind(rewound, start)
            return Delivered(Batch((rewound,), start), time.monotonic() - start_time)
        batch = read_batch(self._journal, start, end, self._sink.limits)
        if not batch.events:
            self._skip_rewind(batch.end)
            return None
        self._save_batch_end(batch.end)
        seconds = self._deliver(batch.events, start, batch.end)
        self.save()
        return Delivered(batch, seconds)

    def retry_postponed(self, max_seconds: float) -> bool:
        """Deliver postponed events until one is postponed again, or the time is over.

        Args:
            max_seconds: Time after which no further event is delivered.

        Returns:
            Whether none was postponed again.

        Raises:
            Exception: If the backend failed. The caller retries later.
        """
        deadline = time.monotonic() + max_seconds
        for seq, (start, _) in list(self.cursor.postponed.items()):
            event = self._refusals.take(self.cursor, seq, self._journal)
            try:
                if event is not None:
                    batch = list(self._filter.select([event]))
                    self._refusals.write(self._connection.open(self.cursor), self.cursor, batch, start)
            except SinkClosedError as error:
                self._close(error)
                return False
            self._clear_error()
            self.save()
            if seq in self.cursor.postponed:
                return False
            if time.monotonic() > deadline:
                break
        return True

    def _save_batch_end(self, position: int) -> None:
        if position > self.cursor.batch_end:
            self.cursor.batch_end = position
            self._save_cursor()

    def deliver_event(self, event: AnyEvent, position: int) -> None:
        """Deliver one event to an inline sink, without saving the cursor.

        Args:
            event: The event that follows the cursor.
            position: Journal position after the event.

        Raises:
            Exception: If the write failed. The caller retries later.
        """
        # The training waits for this call, so a row that needs no filter takes the shortest path.
        is_plain = self._accepts_everything and type(event) is Metrics and event.sinks is None
        connection = self._connection.current
        if connection is None or not is_plain:
            self._deliver((event,), self.cursor.position, position)
            return
        connection.write((event,))
        self.cursor.position, self.cursor.seq = position, event.seq

    def _deliver(self, events: Sequence[AnyEvent], start: int, end: int) -> float:
        """Write events and advance the cursor, without saving it.

        Args:
            events: Events of the journal.
            start: Journal position before the first event.
            end: Journal position after the last event.

        Returns:
            Seconds that the sink took to write the events.
        """
        seconds = 0.0
        try:
            connection = self._connection.open(self.cursor)
            selected, start_time = list(self._filter.select(events)), time.monotonic()
            if self.cursor.postponed:
                selected = self._refusals.hold(self.cursor, selected, start)
            for part in split_events(selected, self._sink.limits.batch_values):
                self._refusals.write(connection, self.cursor, part, start)
            seconds = time.monotonic() - start_time
            self._hidden_kinds.record(self.cursor, selected)
        except SinkClosedError as error:
            self._close(error)
            return seconds
        if self.cursor.end_status and any(isinstance(event, RunStarted) for event in events):
            self.cursor.end_status = None
        self.cursor.position, self.cursor.seq = end, events[-1].seq
        self._clear_error()
        return seconds

    def save(self) -> None:
        """Save position and state of the sink together."""
        if self._connection.current is not None:
            self.cursor.state = self._connection.current.state()
        self.cursor.filter = self._filter.state()
        self._save_cursor()
        if not self._is_poll_failing:
            self._logged_error = None

    def record_failure(self, error: BaseException) -> None:
        """Log and save an error, close the connection, and return to the saved cursor, as after a crash.

        Args:
            error: The exception that the sink raised.
        """
        description = describe_error(error)
        if description != self._logged_error:
            _logger.warning("%s: delivery failed, retrying: %s", self.key, description)
            self._logged_error = description
        try:
            self.reset()
            self.cursor.record_error(error)
            self._save_cursor()
        except OSError as problem:
            raise_from_signal_handler(problem)
            _logger.debug("%s: the error was not saved: %s", self.key, problem)

    def reset(self) -> None:
        """Close the connection, and return to the saved cursor, as after a crash.

        Raises:
            OSError: If the cursor cannot be read.
        """
        self._connection.discard()
        self._restore()

    def poll(self, status: Status) -> bool:
        """Poll the sink if this is due, after its events. Return whether it must be polled again immediately.

        Raises:
            Exception: If the backend failed. The caller retries later, with the saved state.
        """
        if self.is_closed or self.cursor.end_status == status or not self._connection.is_poll_due(status):
            return False
        before = self.cursor.state, self.cursor.error
        self._is_poll_failing = True
        try:
            is_unfinished = self._connection.poll(self.cursor, status)
            self._is_poll_failing = False
            self._clear_error()
        except SinkClosedError as error:
            self._close(error)
            return False
        finally:
            if (self.cursor.state, self.cursor.error) != before:
                self._save_cursor()
        return is_unfinished

    def finish(self, status: Status | None) -> None:
        """Close the connection after the last event.

        Args:
            status: Status with which the run ended. None if the run continues or another process delivers it.

        Raises:
            Exception: If the sink failed. The caller retries later.
        """
        self._filter.report_differences()
        if self.is_closed or (status is None and self._connection.current is None):
            return
        if status is not None and self.cursor.end_status == status:
            self._connection.discard()
            return
        try:
            self._connection.close(self.cursor, status)
        except SinkClosedError as error:
            self._close(error)
            return
        if status is not None:
            self.cursor.end_status = status
            self._hidden_kinds.record_status(self.cursor)
        self._clear_error()
        self.save()

    def verify(self) -> None:
        """Open the backend even if no events are pending, to detect that it lost or deleted the run.

        Raises:
            Exception: If the backend is not available.
        """
        try:
            # A backend may show the run as running while it is open, and another program may have changed its status.
            self._connection.close(self.cursor, self.cursor.end_status)
        except SinkClosedError as error:
            self._close(error)
            return
        self.save()

    def abandon(self) -> None:
        """Save nothing from now on.

        A request that does not return in time may end when the directory already contains another run.
        """
        self._store.revoke()

    def _clear_error(self) -> None:
        if not (self.cursor.postponed or self._is_poll_failing):
            self.cursor.clear_error()

    def _save_cursor(self) -> None:
        self._store.save(self.cursor)

    def _restore(self) -> None:
        self.cursor = self._store.load()
        self._filter.restore(self.cursor.filter)
        self._suppress_superseded()

    def _suppress_superseded(self) -> None:
        # All ranges, since a later rewind may return to a step before the earlier ones.
        for first, last in self.cursor.superseded:
            self._filter.suppress(event for event, _ in journal_reader.read(self._journal, first, last))

    def _close(self, error: SinkClosedError) -> None:
        """Stop the delivery, or start again from the first event if the backend lost the run."""
        self._connection.discard()
        self._restore()
        reason = mask_secrets(str(error) or type(error).__name__)
        if error.is_lost and (self.cursor.state or self.cursor.position):
            _logger.warning("%s: %s Delivering all events again.", self.key, reason)
            self.cursor = Cursor(hidden=self.cursor.hidden)
            self._filter.restore({})
            self._save_cursor()
            return
        if reason != self.cursor.closed_reason:
            _logger.error("%s: delivery stopped: %s", self.key, reason)
        self.is_closed, self.cursor.closed_reason, self.cursor.error_time = True, reason, time.time()
        self._save_cursor()

    def _apply_rewind(self, rewound: Rewound, end: int) -> None:
        """Deliver a rewind that supersedes delivered events."""
        target, self._view.delivered_position = rewound.to_position, self.cursor.position
        try:
            self._refusals.drop_superseded(self.cursor, rewound)
            if self._sink.rewinds:
                self._refusals.write(self._connection.open(self.cursor), self.cursor, [rewound], 0)
            else:
                ranges = journal_reader.effective_ranges(self._journal, self.cursor.position)
                self.cursor.superseded.extend((max(first, target), last) for first, last in ranges if last > target)
                self._suppress_superseded()
        except SinkClosedError as error:
            self._close(error)
            return
        self._filter.rewind(journal_reader.read_effective_reversed(self._journal, target))
        self.cursor.position, self.cursor.seq, self.cursor.end_status = end, rewound.seq, None
        self.save()

    def _skip_rewind(self, position: int) -> None:
        """Move the cursor past a rewind at the end of the journal that supersedes no delivered event."""
        seq = journal_reader.seq_at(self._journal, position) if position > self.cursor.position else None
        if seq is not None:
            self.cursor.position, self.cursor.seq = position, seq
            self.save()
