"""Delivery to an inline sink in the training process."""

from __future__ import annotations

import math
import time
from pathlib import Path

from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store.events import AnyEvent, Rewound, Status
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking._store.place import Place
from pte_tracking._store.signal_errors import raise_from_signal_handler

_SAVE_INTERVAL = 16384  # events between two saves of the cursor, which are redelivered after a crash
_END_ATTEMPTS = 2  # The second one opens a new connection, which builds a deleted file again.
_RETRY_SECONDS = 1.0  # between a failure, such as a full disk, and the next attempt


class InlineConsumer:
    """Delivers events to an inline sink as they are logged. Events of a failed write are read from the journal again.

    Args:
        directory: The run directory.
        manifest: Manifest of the run.
        entry: Entry of the sink in the manifest.
        place: Identity of the directory. If the directory is moved, open files are written, and no other ones.
    """

    def __init__(self, directory: Path, manifest: Manifest, entry: SinkEntry, place: Place) -> None:
        self._place = place
        self._consumer = SinkConsumer(directory, manifest, entry)
        self._unsaved_count = 0
        self._retry_time = 0.0
        #: Whether a call was left by an exception, so cursor, connection and files may differ.
        self._is_torn = False
        self.catch_up()

    def deliver_event(self, event: AnyEvent, start: int, end: int) -> None:
        """Deliver one event.

        Args:
            event: The event.
            start: Journal position before the event, in bytes.
            end: Journal position after the event, in bytes.
        """
        if self._is_torn or self._consumer.cursor.position != start or type(event) is Rewound:
            self.catch_up()
            return
        self._is_torn = True
        try:
            self._consumer.deliver_event(event, end)
            self._unsaved_count += 1
            if self._unsaved_count >= _SAVE_INTERVAL:
                self._unsaved_count = 0
                if self._place.is_current():
                    self._consumer.save()
            self._is_torn = False
        except Exception as error:
            self._record_failure(error)

    def stop(self) -> None:
        """Deliver no events any more, because the directory was moved."""
        self._is_torn, self._retry_time = True, math.inf

    def catch_up(self) -> None:
        """Deliver all pending events. Do nothing shortly after a failure."""
        if time.monotonic() < self._retry_time or not self._place.is_current():
            return
        is_torn, self._is_torn = self._is_torn, True
        try:
            if is_torn:
                self._consumer.reset()
            while self._consumer.deliver_next():
                pass
            self._is_torn = False
        except Exception as error:
            self._record_failure(error)

    def finish(self, status: Status) -> None:
        """Deliver all pending events and close the sink.

        Args:
            status: Status with which the run ended.
        """
        is_current = self._place.is_current()
        if not is_current:
            self._consumer.abandon()
        for _ in range(_END_ATTEMPTS):
            self._retry_time = 0.0
            self.catch_up()
            try:
                self._consumer.finish(status if is_current else None)
                return
            except Exception as error:
                self._record_failure(error)

    def _record_failure(self, error: Exception) -> None:
        """Record a failure of the sink. Raise an exception that a signal handler raised."""
        raise_from_signal_handler(error)
        self._retry_time = time.monotonic() + _RETRY_SECONDS
        if not self._place.is_current():
            return
        self._consumer.record_failure(error)
