"""Runs that one process delivers at the same time, each in a thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pte_tracking.testing import Points, RecordedRun

_BATCHES = 10


def deliver_at_once(runs: Sequence[RecordedRun]) -> None:
    """Log 10 steps to each run, and deliver each step in a batch of its own while the other runs are delivered."""
    barrier = threading.Barrier(len(runs))

    def deliver(number: int, run: RecordedRun) -> None:
        barrier.wait(60)
        for step in range(1, _BATCHES + 1):
            run.log(step, {"loss": float(100 * number + step)})
            run.deliver()
        run.end()

    threads = [threading.Thread(target=deliver, args=pair) for pair in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


def expected_points(number: int) -> Points:
    """Return the points of the run with this number in the list."""
    return {"loss": [(step, float(100 * number + step)) for step in range(1, _BATCHES + 1)]}
