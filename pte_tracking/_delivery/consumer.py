"""One sink's way through the journal: its position, its state, its troubles."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._delivery.history_reader import HistoryReader
from pte_tracking._delivery.run_view import JournalRunView
from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._delivery.throttle import request_interval
from pte_tracking._store import journal_reader
from pte_tracking._store.events import AnyEvent, Metrics, Rewound, RunStarted, Status
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking.sinks import UNLIMITED, Connection, Limits, RejectedEventError, SinkClosedError

_logger = logging.getLogger("pte_tracking")
_MAX_REJECTED = 1000


class SinkConsumer:
    """Carries the journal of a run to one sink.

    Args:
        directory: The run's directory, absolute.
        manifest: The run's manifest.
        entry: The sink.

    Raises:
        ValueError: The sink is not installed.
    """

    def __init__(self, directory: Path, manifest: Manifest, entry: SinkEntry) -> None:
        self.key = entry.key
        self._sink = build_sink(entry)
        self._is_shared = self._sink.uses_shared_server
        self._directory = directory
        self._journal = directory / JOURNAL
        self._filter = EventFilter(self.key, entry.name, self._sink.limits)
        self._view = JournalRunView(directory, manifest, self._filter)
        self._reader = HistoryReader(self._journal)
        self._connection: Connection | None = None
        #: What it failed with last, as long as it fails.
        self._logged_error: str | None = None
        #: Of the last batch: whether there is more, whether it was nothing but numbers, and the seconds that it took.
        self._was_full, self._was_small, self._took = False, False, 0.0
        self._is_abandoned = False
        self._accepts_everything = self._sink.limits == Limits(separate_logs=True, batch_values=UNLIMITED)
        self._restore()

    @property
    def is_inline(self) -> bool:
        """Whether the training process writes this sink."""
        return self._sink.inline

    @property
    def is_closed(self) -> bool:
        """Whether the backend has given this run up for ever."""
        return self.cursor.closed_reason is not None

    @property
    def throttle_seconds(self) -> float:
        """Seconds for which the backend should be left to others now, while the run goes on."""
        if not self._is_shared or self._was_full:
            return 0.0
        return request_interval(self._took, is_small=self._was_small)

    def deliver_next(self) -> bool:
        """Deliver the next batch.

        Returns:
            Whether there was one.

        Raises:
            Exception: The backend could not be reached or did not take it: to be tried again later.
        """
        start, end = self.cursor.position, self._journal.stat().st_size
        if self.is_closed or end <= start:
            return False
        if start < self.cursor.batch_end < end:
            end = self.cursor.batch_end
        rewound, start, end = self._reader.next_range(start, end)
        if rewound:
            self._save_batch_end(start)
            self._apply_rewind(rewound, start)
            return True
        events, position = self._batch(start, end)
        if not events:
            self._skip_rewind(position)
            return False
        self._save_batch_end(position)
        self.deliver(events, position)
        self.save()
        return True

    def _save_batch_end(self, position: int) -> None:
        if position > self.cursor.batch_end:
            self.cursor.batch_end = position
            self._save_cursor()

    def deliver_event(self, event: AnyEvent, position: int) -> None:
        """Deliver one event that ends at ``position``, on the shortest way: training waits for this."""
        is_plain = self._accepts_everything and getattr(event, "sinks", None) is None
        if self._connection is None or not is_plain:
            self.deliver([event], position)
            return
        self._connection.write((event,))
        self.cursor.position, self.cursor.seq = position, event.seq

    def deliver(self, events: list[AnyEvent], position: int) -> None:
        """Write events of the journal, the last of which ends at ``position``; progress is kept, but not saved."""
        try:
            connection = self._connect()
            selected, begun = list(self._filter.select(events)), time.monotonic()
            for batch in _cut(selected, self._sink.limits.batch_values):
                self._write(connection, batch)
            self._took = time.monotonic() - begun
        except SinkClosedError as error:
            self._close_permanently(error)
            return
        if self.cursor.end_status and any(isinstance(event, RunStarted) for event in events):
            self.cursor.end_status = None
        self.cursor.position, self.cursor.seq = position, events[-1].seq
        self.cursor.error = self.cursor.error_time = None

    def save(self) -> None:
        """Make position and state durable against the end of this process, together."""
        if self._connection is not None:
            self.cursor.state = self._connection.state()
        self.cursor.filter = self._filter.state()
        if not self._filter.has_suppressed:
            self.cursor.superseded = []
        self._save_cursor()
        self._logged_error = None

    def record_failure(self, error: BaseException) -> None:
        """Keep what went wrong where people look for it, and go on from what was saved last, as after a crash."""
        message = " ".join(f"{type(error).__name__}: {error}".split())[:2000]  # one line, whatever it was
        if message != self._logged_error:
            _logger.warning("%s: %s; it is tried again", self.key, message)
            self._logged_error = message
        self._disconnect()
        try:
            self._restore()
            self.cursor.error, self.cursor.error_time = message, time.time()
            self._save_cursor()
        except OSError as problem:
            _logger.debug("%s: what failed is not kept: %s", self.key, problem)

    def finish(self, status: Status | None) -> None:
        """Tell the backend that everything was delivered and how the run ended; None if it goes on elsewhere.

        Raises:
            Exception: The backend could not be reached: to be tried again later.
        """
        if self.is_closed or (status is not None and self.cursor.end_status == status):
            return
        if status is None and self._connection is None:
            return
        try:
            connection = self._connect()
            connection.close(status)
        except SinkClosedError as error:
            self._close_permanently(error)
            return
        self.cursor.state, self._connection = connection.state(), None
        self.cursor.end_status = status
        self.cursor.error = self.cursor.error_time = None
        self.save()

    def abandon(self) -> None:
        """Keep nothing from now on: what is under way may end when the directory is another run's."""
        self._is_abandoned = True

    def _save_cursor(self) -> None:
        if not self._is_abandoned:
            self.cursor.save(self._directory, self.key)

    def _restore(self) -> None:
        """Begin where the saved progress ends."""
        progress = Cursor.load(self._directory, self.key)
        if progress.position and journal_reader.seq_at(self._journal, progress.position) != progress.seq:
            _logger.warning("%s: the journal is not the one that was delivered; it is delivered again", self.key)
            progress = Cursor(closed_reason=progress.closed_reason)
        self.cursor = progress
        self._filter.restore(progress.filter)
        for first, last in progress.superseded:
            self._filter.suppress(event for event, _ in journal_reader.read(self._journal, first, last))

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._sink.open(self._view, self.cursor.state)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it has failed already, and that was told
                connection.close(None)

    def _close_permanently(self, error: SinkClosedError) -> None:
        _logger.error("%s: %s; nothing more is delivered there", self.key, error)
        self.cursor.closed_reason = str(error) or type(error).__name__
        self._save_cursor()
        self._disconnect()

    def _batch(self, start: int, end: int) -> tuple[list[AnyEvent], int]:
        """The next events, as many as one write should carry, and the position behind them."""
        events: list[AnyEvent] = []
        values, limits = 0, self._sink.limits
        self._was_full = False
        for event, behind in journal_reader.read(self._journal, start, end):
            values += len(event.values) if isinstance(event, Metrics) else 0
            if events and values > limits.batch_values:
                self._was_full = True
                break
            events.append(event)
            start = behind
            if len(events) >= limits.batch_events:
                self._was_full = True
                break
        self._was_small = all(isinstance(event, Metrics) for event in events)
        return events, start

    def _apply_rewind(self, rewound: Rewound, behind: int) -> None:
        """Follow a rewind that takes back what was delivered already."""
        held, self._view.delivered_position = self.cursor.position, self.cursor.position
        try:
            if self._sink.rewinds:
                self._write(self._connect(), [rewound])
            else:
                pieces = journal_reader.effective_ranges(self._journal, held)
                gone = [(max(first, rewound.to_position), last) for first, last in pieces if last > rewound.to_position]
                self.cursor.superseded.extend(gone)
                self._filter.suppress(
                    event for piece in gone for event, _ in journal_reader.read(self._journal, *piece)
                )
        except SinkClosedError as error:
            self._close_permanently(error)
            return
        self._filter.rewind(journal_reader.read_effective_reversed(self._journal, rewound.to_position))
        self.cursor.position, self.cursor.seq, self.cursor.end_status = behind, rewound.seq, None
        self.save()

    def _skip_rewind(self, position: int) -> None:
        """Step behind a rewind that takes nothing back here, as no event has come after it yet."""
        seq = journal_reader.seq_at(self._journal, position) if position > self.cursor.position else None
        if seq is not None:
            self.cursor.position, self.cursor.seq = position, seq
            self.save()

    def _write(self, connection: Connection, batch: list[AnyEvent]) -> None:
        while batch:
            try:
                connection.write(batch)
            except RejectedEventError as error:
                rest = [event for event in batch if event.seq != error.seq]
                if len(rest) == len(batch):
                    raise
                _logger.error("%s: the event %d is refused and set aside: %s", self.key, error.seq, error.reason)
                if len(self.cursor.rejected) < _MAX_REJECTED:
                    self.cursor.rejected[str(error.seq)] = error.reason
                batch = rest
            else:
                return


def _cut(events: list[AnyEvent], most_values: int) -> Iterator[list[AnyEvent]]:
    batch: list[AnyEvent] = []
    values = 0
    for event in events:
        more = len(event.values) if isinstance(event, Metrics) else 0
        if batch and values + more > most_values:
            yield batch
            batch, values = [], 0
        batch.append(event)
        values += more
    if batch:
        yield batch
