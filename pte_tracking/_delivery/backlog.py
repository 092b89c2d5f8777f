"""Pending events of a run's sinks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._store.journal_reader import last_event, seq_at
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.samples import read_samples
from pte_tracking._store.status import read_status

_MAX_REASON_LENGTH = 500  # characters in a message; an error of a database contains its whole statement


class SinkBacklog(NamedTuple):
    """Pending events of one sink.

    Attributes:
        key: Key of the sink in the run.
        events: Number of pending events. 0 if only the end status of the run is pending.
        reason: Error of the last attempt, or the reason why the sink cannot be used. None if there was no error.
        is_closed: Whether the backend accepts no events of the run, so only a request retries the delivery.
    """

    key: str
    events: int
    reason: str | None
    is_closed: bool = False

    def __str__(self) -> str:
        pending = "delivery stopped" if self.is_closed else "pending end status"
        if self.events:
            pending = f"{self.events:,} pending {'event' if self.events == 1 else 'events'}"
        return f"{pending} for {self.key}" + (f" ({_shorten(self.reason)})" if self.reason else "")

    @property
    def short_text(self) -> str:
        """Sink and number of events, for a line or a table with several sinks."""
        if self.events:
            return f"{self.key}: {self.events:,} event{'s' * (self.events != 1)}"
        return f"{self.key}: {'stopped' if self.is_closed else 'end status'}"


def backlog(directory: Path, manifest: Manifest, size: int | None = None) -> list[SinkBacklog]:
    """Determine the pending events of each sink. Skip inline sinks.

    Args:
        directory: The run directory.
        manifest: Manifest of the run.
        size: Journal position up to which events count, in bytes. By default, all events and the end status count.

    Returns:
        The sinks that have pending events or a pending end status.
    """
    # The end of the last complete line. A torn line of a killed training process is not an event.
    last, end = last_event(directory / JOURNAL)
    target = end if size is None else size
    status = read_status(directory) if size is None else "RUNNING"
    backlogs = []
    for entry in manifest.sinks:
        problem = None
        try:
            if build_sink(entry).inline:
                continue
        except (TypeError, ValueError) as error:  # not installed here, or another version
            problem = str(error)
        cursor = Cursor.load(directory, entry.key)
        is_status_delivered = status in ("RUNNING", cursor.end_status)
        samples = _pending_samples(directory, manifest, cursor) if size is None else 0
        is_delivered = cursor.position >= target and not samples and not cursor.postponed
        if is_delivered and is_status_delivered and not cursor.closed_reason:
            continue
        # A newer version may have delivered events after the last one that this version reads.
        count = (max(last.seq - cursor.seq, 0) if last else 0) + len(cursor.postponed) + samples
        reason = cursor.closed_reason or cursor.error or _postponed_reason(cursor) or problem
        backlogs.append(SinkBacklog(entry.key, count, reason, bool(cursor.closed_reason)))
    return backlogs


def _pending_samples(directory: Path, manifest: Manifest, cursor: Cursor) -> int:
    if manifest.sampling is None:
        return 0
    return sum(len(samples.events) for samples in read_samples(directory, cursor.samples))


def have_closed_since(directory: Path, pending: list[SinkBacklog], start_time: float) -> bool:
    """Whether all sinks with pending events refused them after a time, so waiting is of no use.

    Args:
        directory: The run directory.
        pending: Pending events of the sinks.
        start_time: Time in seconds since the Unix epoch.
    """
    return all(sink.is_closed and (Cursor.load(directory, sink.key).error_time or 0) > start_time for sink in pending)


def has_auth_error(directory: Path, start_time: float) -> bool:
    """Whether a backend has refused the credentials of the process that delivers the run after a time.

    Args:
        directory: The run directory.
        start_time: Time in seconds since the Unix epoch.
    """
    cursors = (Cursor.load(directory, entry.key) for entry in Manifest.load(directory).sinks)
    return any(cursor.error_kind == "auth" and (cursor.error_time or 0) > start_time for cursor in cursors)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_REASON_LENGTH else f"{text[:_MAX_REASON_LENGTH]}..."


def _postponed_reason(cursor: Cursor) -> str | None:
    return next((reason for _, reason in cursor.postponed.values() if reason), None)


def find_lost_events(directory: Path, manifest: Manifest) -> list[str]:
    """Find delivered events that are missing at the end of the journal.

    Args:
        directory: The run directory.
        manifest: Manifest of the run.

    Returns:
        One line for each sink that received events after the end of the journal.
    """
    # The cursors are read before the journal, because both may be growing.
    positions = {entry.key: Cursor.load(directory, entry.key).position for entry in manifest.sinks}
    _, end = last_event(directory / JOURNAL)
    return [
        f"{directory / JOURNAL}: ends at byte {end}, but {key} received events up to byte {position}. "
        "The end of the journal is lost."
        for key, position in positions.items()
        if position > end and seq_at(directory / JOURNAL, position) is None
    ]
