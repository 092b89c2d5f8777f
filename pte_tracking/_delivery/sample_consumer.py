"""Delivery of the journal and of the samples of system metrics to one sink."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pte_tracking._delivery.batch import Batch, Delivered, split_events
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store.events import AnyEvent
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking._store.samples import Samples, read_samples
from pte_tracking.sinks import SinkClosedError


class SampleConsumer(SinkConsumer):
    """Consumer that delivers samples when no events of the journal are pending. Inline sinks receive no samples.

    Args:
        directory: Absolute path of the run directory.
        manifest: Manifest of the run.
        entry: Entry of the sink in the manifest.
    """

    def __init__(self, directory: Path, manifest: Manifest, entry: SinkEntry) -> None:
        super().__init__(directory, manifest, entry)
        self._directory = directory
        self._view.samples = self._read_delivered

    def deliver_next(self) -> Delivered | None:
        """Deliver the next batch of the journal, or else of the samples.

        Returns:
            The delivered batch, or None if there are no pending events and samples.

        Raises:
            Exception: If the write failed. The caller retries later.
        """
        delivered = super().deliver_next()
        # A sink that receives the run from its beginning needs the start of the run first.
        if delivered is not None or self.is_closed or not self.cursor.position:
            return delivered
        samples = next(read_samples(self._directory, self.cursor.samples), None)
        return None if samples is None else self._deliver_samples(samples)

    def _deliver_samples(self, samples: Samples) -> Delivered:
        batch, start_time = Batch(tuple(samples.events), self.cursor.position, is_metrics_only=True), time.monotonic()
        try:
            connection = self._connection.open(self.cursor)
            for part in split_events(self._filter.select(samples.events), self._sink.limits.batch_values):
                self._refusals.write(connection, self.cursor, part, self.cursor.position)
        except SinkClosedError as error:
            self._close(error)
            return Delivered(batch, time.monotonic() - start_time)
        self.cursor.samples[samples.file] = samples.end
        self.cursor.end_status = None  # A backend may show the run as running since it was opened.
        if not self.cursor.postponed:
            self.cursor.clear_error()
        self.save()
        return Delivered(batch, time.monotonic() - start_time)

    def _read_delivered(self) -> Iterator[AnyEvent]:
        for samples in read_samples(self._directory, {}, self.cursor.samples):
            yield from samples.events
