"""A sink that is written in the training process, since it costs microseconds there."""

from __future__ import annotations

import time
from pathlib import Path

from pte_tracking._delivery.consumer import Channel
from pte_tracking._store.events import AnyEvent, Rewound, Status
from pte_tracking._store.manifest import Manifest, SinkEntry

_SAVE_EVERY = 16384  # events that may have to be written again after a kill
_PAUSE = 1.0  # seconds after a failure (a full disk) before the next attempt


class Inline:
    """Hands events to a sink as they are logged; whatever it fails to take, it is given again from the journal.

    Args:
        directory: The run's directory.
        manifest: The run's manifest.
        entry: The sink.
    """

    def __init__(self, directory: Path, manifest: Manifest, entry: SinkEntry) -> None:
        self._channel = Channel(directory, manifest, entry)
        self._unsaved = 0
        self._not_before = 0.0
        self.catch_up()

    def push(self, event: AnyEvent, start: int, end: int) -> None:
        """Write one event that stands in the journal between the positions ``start`` and ``end``."""
        if self._channel.progress.position != start or type(event) is Rewound:
            self.catch_up()
            return
        try:
            self._channel.push(event, end)
            self._unsaved += 1
            if self._unsaved >= _SAVE_EVERY:
                self.save()
        except Exception as error:
            self._failed(error)

    def catch_up(self) -> None:
        """Write all that the journal holds."""
        if time.monotonic() < self._not_before:
            return
        try:
            while self._channel.pump():
                pass
        except Exception as error:
            self._failed(error)

    def save(self) -> None:
        """Keep how far the sink is."""
        self._unsaved = 0
        try:
            self._channel.save()
        except OSError as error:
            self._failed(error)

    def finish(self, status: Status) -> None:
        """Write what is left, and close."""
        self._not_before = 0.0
        self.catch_up()
        try:
            self._channel.finish(status)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._not_before = time.monotonic() + _PAUSE
        self._channel.failed(error)
