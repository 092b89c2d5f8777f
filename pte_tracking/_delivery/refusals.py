"""Events that a backend rejects, and events whose files wait while other events are delivered."""

from __future__ import annotations

import logging
from pathlib import Path

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store import journal_reader
from pte_tracking._store.events import (
    AnyEvent,
    Artifact,
    Checkpoint,
    CheckpointRemoved,
    MediaFile,
    Model,
    Rewound,
    Text,
)
from pte_tracking._store.secrets import mask_secrets
from pte_tracking.sinks import Connection, PostponedEventsError, RejectedEventError

_logger = logging.getLogger("pte_tracking")
_MAX_REJECTED = 1000  # rejected events per sink that the cursor lists
#: Events that wait while a file of an earlier event is postponed. Files are stored in order, and an artifact store that
#: does not respond delays the metrics only once per attempt.
_FILE_EVENTS = (Artifact, Checkpoint, CheckpointRemoved, MediaFile, Model, Text)


class Refusals:
    """Writes batches without the events that a backend refuses, and keeps these events in the cursor of the sink.

    Args:
        key: Key of the sink in the run.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        #: Error that was logged last. A repeated error is not logged again.
        self._logged_error: str | None = None
        #: Reason of the rejection that was logged last. The cause may concern each file of a run.
        self._logged_reason: str | None = None

    def write(self, connection: Connection, cursor: Cursor, batch: list[AnyEvent], start: int) -> None:
        """Write a batch without the events that the backend rejects or postpones.

        Args:
            connection: Connection to the backend.
            cursor: Cursor of the sink.
            batch: Events to write.
            start: Journal position before the events, in bytes.

        Raises:
            Exception: If the backend failed.
        """
        while batch:
            try:
                connection.write(batch)
            except RejectedEventError as error:
                remaining = [event for event in batch if event.seq != error.seq]
                if len(remaining) == len(batch):
                    raise
                self._log_rejection(error)
                if len(cursor.rejected) < _MAX_REJECTED:
                    cursor.rejected[str(error.seq)] = mask_secrets(error.reason)
                batch = remaining
            except PostponedEventsError as error:
                self._postpone(cursor, error, start)
                return
            else:
                return

    def _log_rejection(self, error: RejectedEventError) -> None:
        if error.reason == self._logged_reason:
            _logger.info("%s: skipping rejected event %d for the same reason", self._key, error.seq)
            return
        self._logged_reason = error.reason
        _logger.error("%s: skipping rejected event %d: %s", self._key, error.seq, error.reason)

    def _postpone(self, cursor: Cursor, error: PostponedEventsError, start: int) -> None:
        for seq, reason in error.reasons.items():
            cursor.postponed[str(seq)] = (start, mask_secrets(reason))
        cursor.record_error(error.__cause__ or error)
        if cursor.error != self._logged_error:
            self._logged_error = cursor.error
            _logger.warning("%s: files are not stored yet, retrying: %s", self._key, cursor.error)

    def hold(self, cursor: Cursor, events: list[AnyEvent], start: int) -> list[AnyEvent]:
        """Postpone the events that have files, without an attempt to store them.

        Args:
            cursor: Cursor of the sink, with postponed events.
            events: Events of a batch.
            start: Journal position before the events, in bytes.

        Returns:
            The other events.
        """
        for event in events:
            if isinstance(event, _FILE_EVENTS):
                cursor.postponed[str(event.seq)] = (start, "")
        return [event for event in events if not isinstance(event, _FILE_EVENTS)]

    def take(self, cursor: Cursor, seq: str, journal: Path) -> AnyEvent | None:
        """Remove a postponed event from the cursor and return it, or None if the journal does not contain it."""
        start, _ = cursor.postponed.pop(seq)
        events = (event for event, _ in journal_reader.read(journal, start, cursor.position))
        return next((event for event in events if event.seq == int(seq)), None)

    def drop_superseded(self, cursor: Cursor, rewound: Rewound) -> None:
        """Remove the events that a rewind supersedes."""
        kept = {seq: item for seq, item in cursor.postponed.items() if int(seq) <= rewound.to_seq}
        cursor.postponed = kept
