"""How much of the machine, and of a server, the delivery takes while the training runs: where they are short, little.

A low priority is not enough: what runs on the core that a thread of the training is about to wake on costs that thread
a switch, and a training waits for the slowest of its threads. Measured on two cores, with a step of 2 ms by two threads
and 2,500 points a second to MLflow: half as slow again at any priority, even the lowest; with this, not measurable.

A server is short whenever it answers slowly, since hundreds of other runs may be there that nobody sees from here. Each
keeps it busy one part in twenty at most, so that a thousand runs are fifty requests at a time, as long as it answers
within three seconds: they ask less often then, once a minute in the end, and send more at once, which costs it less for
each point.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_MIN_IDLE_CORES = (
    1.5  # cores beside those that others use: one for the delivery, and half of one so that nobody waits for it
)
_PAUSE_FACTOR = 19  # a throttled delivery pauses this many times as long as it worked
_MAX_PAUSE_SECONDS = 5.0  # seconds
_SAMPLE_SECONDS = 1.0  # seconds
_MIN_INTERVAL_SECONDS, _MAX_INTERVAL_SECONDS = 1.0, 60.0  # seconds from one request to the next


class Throttle:
    """Watches whether the machine has cores to spare."""

    def __init__(self) -> None:
        self._sample_time = time.monotonic()
        self._idle_before, self._process_before = _idle_seconds(), time.process_time()
        self._is_busy = False

    def pause_seconds(self, work_seconds: float) -> float:
        """Seconds to rest after having worked for so many."""
        if time.monotonic() - self._sample_time > _SAMPLE_SECONDS:
            self._sample()
        return min(work_seconds * _PAUSE_FACTOR, _MAX_PAUSE_SECONDS) if self._is_busy else 0.0

    def _sample(self) -> None:
        sample_time, idle, process_time = time.monotonic(), _idle_seconds(), time.process_time()
        if idle is not None and self._idle_before is not None:
            idle_cores = (idle - self._idle_before + process_time - self._process_before) / (
                sample_time - self._sample_time
            )
            self._is_busy = idle_cores < _MIN_IDLE_CORES
        self._sample_time, self._idle_before, self._process_before = sample_time, idle, process_time


def request_interval(work_seconds: float, *, is_small: bool) -> float:
    """Seconds to leave a server to other runs.

    Args:
        worked: The seconds that it has worked for this one.
        is_small: It was nothing but numbers, so that the time tells how busy the server is.
    """
    return max(
        _MIN_INTERVAL_SECONDS - work_seconds,
        min(work_seconds * _PAUSE_FACTOR, _MAX_INTERVAL_SECONDS) if is_small else 0.0,
    )


def _idle_seconds() -> float | None:
    """Seconds that all cores together were idle since the start of the machine; None where it does not tell."""
    try:
        words = _STAT.read_text().partition("\n")[0].split()
        return (int(words[4]) + int(words[5])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
