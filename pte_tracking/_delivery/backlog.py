"""What of a run is not yet in its backends, and why."""

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
    """What one sink has not got.

    Attributes:
        key: The sink's key in the run.
        events: How many events; 0 if only the news that the run ended is missing.
        why: What the last attempt failed with, or why there can be none; None if there was no failure.
    """

    key: str
    events: int
    reason: str | None

    def __str__(self) -> str:
        what = f"{self.events} events" if self.events else "the end of the run"
        return f"{what} to {self.key}" + (f" ({self.reason})" if self.reason else "")


def backlog(directory: Path, manifest: Manifest, size: int | None = None) -> list[SinkBacklog]:
    """What is not delivered, sink by sink; sinks that have given the run up for ever are left out.

    Args:
        directory: The run's directory.
        manifest: Its manifest.
        size: Only what stands before this position of the journal counts; by default all of it, and the run's end.
    """
    # What a killed trainer left of a line is no event.
    last, end = last_event(directory / JOURNAL)
    target = end if size is None else size
    has_ended = size is None and read_status(directory) != "RUNNING"
    found = []
    for entry in manifest.sinks:
        trouble = None
        try:
            if build_sink(entry).inline:
                continue
        except (TypeError, ValueError) as error:  # it is not installed here, or another version
            trouble = str(error)
        progress = Cursor.load(directory, entry.key)
        is_done = progress.position >= target and (progress.end_status is not None or not has_ended)
        if progress.closed_reason is None and not is_done:
            left = last.seq - progress.seq if last else 0
            found.append(SinkBacklog(entry.key, left, progress.error or trouble))
    return found


def find_lost_events(directory: Path, manifest: Manifest) -> list[str]:
    """The sinks that have got more than the journal holds: it was cut. One line each."""
    # In this order: both may be growing.
    reached = {entry.key: Cursor.load(directory, entry.key).position for entry in manifest.sinks}
    _, end = last_event(directory / JOURNAL)
    return [
        f"{directory / JOURNAL}: ends at byte {end}, but {key} has got all up to byte {position}: its end is lost"
        for key, position in reached.items()
        if position > end
    ]
