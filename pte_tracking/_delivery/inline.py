"""A sink that is written in the training process, since it costs microseconds there."""

from __future__ import annotations

import time
from pathlib import Path

from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store.events import AnyEvent, Rewound, Status
from pte_tracking._store.manifest import Manifest, SinkEntry

_SAVE_INTERVAL = 16384  # events that may have to be written again after a kill
_RETRY_SECONDS = 1.0  # seconds after a failure (a full disk) before the next attempt


class InlineConsumer:
    """Hands events to a sink as they are logged; whatever it fails to take, it is given again from the journal.

    Args:
        directory: The run's directory.
        manifest: The run's manifest.
        entry: The sink.
    """

    def __init__(self, directory: Path, manifest: Manifest, entry: SinkEntry) -> None:
        self._consumer = SinkConsumer(directory, manifest, entry)
        self._unsaved_count = 0
        self._retry_time = 0.0
        self.catch_up()

    def deliver_event(self, event: AnyEvent, start: int, end: int) -> None:
        """Write one event that stands in the journal between the positions ``start`` and ``end``."""
        if self._consumer.cursor.position != start or type(event) is Rewound:
            self.catch_up()
            return
        try:
            self._consumer.deliver_event(event, end)
            self._unsaved_count += 1
            if self._unsaved_count >= _SAVE_INTERVAL:
                self.save()
        except Exception as error:
            self._record_failure(error)

    def catch_up(self) -> None:
        """Write all that the journal holds."""
        if time.monotonic() < self._retry_time:
            return
        try:
            while self._consumer.deliver_next():
                pass
        except Exception as error:
            self._record_failure(error)

    def save(self) -> None:
        """Keep how far the sink is."""
        self._unsaved_count = 0
        try:
            self._consumer.save()
        except OSError as error:
            self._record_failure(error)

    def finish(self, status: Status) -> None:
        """Write what is left, and close."""
        self._retry_time = 0.0
        self.catch_up()
        try:
            self._consumer.finish(status)
        except Exception as error:
            self._record_failure(error)

    def _record_failure(self, error: Exception) -> None:
        self._retry_time = time.monotonic() + _RETRY_SECONDS
        self._consumer.record_failure(error)
