"""Pending events of a run's sinks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.status import read_status


class SinkBacklog(NamedTuple):
    """Pending events of one sink.

    Attributes:
        key: Key of the sink in the run.
        events: Number of pending events. 0 if only the end status of the run is pending.
        reason: Error of the last attempt, or the reason why the sink cannot be used. None if there was no error.
    """

    key: str
    events: int
    reason: str | None

    def __str__(self) -> str:
        pending = "pending end status"
        if self.events:
            pending = f"{self.events} pending {'event' if self.events == 1 else 'events'}"
        return f"{pending} for {self.key}" + (f" ({self.reason})" if self.reason else "")


def backlog(directory: Path, manifest: Manifest, size: int | None = None) -> list[SinkBacklog]:
    """Determine the pending events of each sink. Skip inline sinks and sinks that closed permanently.

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
    has_ended = size is None and read_status(directory) != "RUNNING"
    backlogs = []
    for entry in manifest.sinks:
        problem = None
        try:
            if build_sink(entry).inline:
                continue
        except (TypeError, ValueError) as error:  # not installed here, or another version
            problem = str(error)
        cursor = Cursor.load(directory, entry.key)
        is_done = cursor.position >= target and (cursor.end_status is not None or not has_ended)
        if cursor.closed_reason is None and not is_done:
            count = last.seq - cursor.seq if last else 0
            backlogs.append(SinkBacklog(entry.key, count, cursor.error or problem))
    return backlogs


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
        if position > end
    ]
