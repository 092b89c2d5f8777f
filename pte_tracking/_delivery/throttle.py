"""Limits on the processor time and the requests that delivery uses while the training runs.

A low priority is not enough. If the delivery process runs on the core on which a thread of the training is about to
wake, that thread waits for a context switch, and a training step waits for its slowest thread. Measured on two cores,
with steps of 2 ms on two threads and 2,500 data points per second to MLflow, training took 50% longer at any priority.
With the pauses of :class:`Throttle` the difference is not measurable.

A server that responds slowly may be serving hundreds of other runs. Each run keeps a server busy for at most one
twentieth of the time, so 1,000 runs are 50 concurrent requests. A run waits at most 60 seconds between requests,
which corresponds to requests of 3 seconds. Fewer requests contain more data points each, which costs the server less
per data point.
"""

from __future__ import annotations

import time

from pte_tracking._platform.processes import idle_seconds

_MIN_IDLE_CORES = 1.5  # idle cores required for delivery without pauses, its own core included
_PAUSE_FACTOR = 19  # duration of a pause as a multiple of the preceding work
_MAX_PAUSE_SECONDS = 5.0
_SAMPLE_SECONDS = 1.0
_MIN_INTERVAL_SECONDS, _MAX_INTERVAL_SECONDS = 1.0, 60.0  # between two requests


class Throttle:
    """Pauses of the delivery while the machine has too few idle cores."""

    def __init__(self) -> None:
        self._sample_time = time.monotonic()
        self._idle_before, self._process_before = idle_seconds(), time.process_time()
        self._is_busy = False

    def pause_seconds(self, work_seconds: float) -> float:
        """Return the duration of the pause after some work.

        Args:
            work_seconds: Duration of the work, in seconds.

        Returns:
            Seconds, 0.0 if enough cores are idle.
        """
        if time.monotonic() - self._sample_time > _SAMPLE_SECONDS:
            self._sample()
        return min(work_seconds * _PAUSE_FACTOR, _MAX_PAUSE_SECONDS) if self._is_busy else 0.0

    def _sample(self) -> None:
        sample_time, idle, process_time = time.monotonic(), idle_seconds(), time.process_time()
        if idle is not None and self._idle_before is not None:
            idle_cores = (idle - self._idle_before + process_time - self._process_before) / (
                sample_time - self._sample_time
            )
            self._is_busy = idle_cores < _MIN_IDLE_CORES
        self._sample_time, self._idle_before, self._process_before = sample_time, idle, process_time


def request_interval(work_seconds: float, *, is_metrics_only: bool) -> float:
    """Return the time to wait before the next request to a server that other runs use.

    Args:
        work_seconds: Duration of the last request, in seconds.
        is_metrics_only: Whether the request contained only metrics, so its duration depends on the load of the
            server.

    Returns:
        Seconds, 0.0 or more.
    """
    return max(
        _MIN_INTERVAL_SECONDS - work_seconds,
        min(work_seconds * _PAUSE_FACTOR, _MAX_INTERVAL_SECONDS) if is_metrics_only else 0.0,
    )
