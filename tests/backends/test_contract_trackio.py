"""Contract tests of the Trackio backend."""

from __future__ import annotations

from pathlib import Path

from pte_backends.trackio import TrackioSink
from pte_tracking.sinks import Sink
from pte_tracking.testing import Points, SinkContract
from tests.backends import trackio_store


class TestTrackio(SinkContract):
    # A tenth of the default, because the test directories of CI share few cores.
    large_run_rows = 2000

    def make_sink(self, folder: Path) -> Sink:
        return trackio_store.new_sink()

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        assert isinstance(sink, TrackioSink)
        return trackio_store.read_points(sink, run_directory)
