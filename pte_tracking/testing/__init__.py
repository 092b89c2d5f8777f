"""The tests that every backend passes: inherit :class:`SinkContract` in a test module of your own.

Example::

    class TestMySink(SinkContract):
        def make_sink(self, folder):
            return MySink(path=str(folder / "store"))

        def read_points(self, sink, run_directory):
            ...  # {"train/loss": [(1, 0.5), (2, 0.25)]}

pytest is needed, and hypothesis for one test, which is skipped without it. The tests drive the sink as the delivery
process does, in the test's own process but for one, which kills another.
"""

from __future__ import annotations

from pte_tracking.testing._contract import SinkContract
from pte_tracking.testing._recorded_run import RecordedRun
from pte_tracking.testing._samples import Points

__all__ = ["Points", "RecordedRun", "SinkContract"]
