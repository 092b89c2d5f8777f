"""Pauses between attempts while a backend is unavailable."""

from __future__ import annotations

import random
import time

_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.5, 60.0


class Backoff:
    """Random pauses after failures, whose upper bound doubles with each failure.

    The pauses are random so that runs that lost a server at the same moment do not return at the same moment.
    """

    def __init__(self) -> None:
        self._bound_seconds = _MIN_BACKOFF_SECONDS

    def reset(self) -> None:
        """Start again at the lowest bound, after a success."""
        self._bound_seconds = _MIN_BACKOFF_SECONDS

    def next_pause_seconds(self) -> float:
        """Return the duration of the pause after a failure, and double the bound of the next one."""
        pause_seconds = random.uniform(0, self._bound_seconds)
        self._bound_seconds = min(2 * self._bound_seconds, _MAX_BACKOFF_SECONDS)
        return pause_seconds


class RetrySchedule:
    """Times at which postponed events are delivered again."""

    def __init__(self) -> None:
        self._backoff = Backoff()
        self._next_time = 0.0
        self._requests: int | None = None

    def is_due(self, requests: int) -> bool:
        """Whether the pause is over, or an immediate retry was requested.

        Args:
            requests: Number of requests for an immediate retry so far.
        """
        return time.monotonic() >= self._next_time or requests != self._requests

    def record(self, requests: int, *, has_succeeded: bool) -> None:
        """Start the next pause, which is empty after a success.

        Args:
            requests: Number of requests for an immediate retry that the attempt answers.
            has_succeeded: Whether the attempt succeeded.
        """
        self._requests = requests
        if has_succeeded:
            self._backoff.reset()
            self._next_time = 0.0
        else:
            self._next_time = time.monotonic() + self._backoff.next_pause_seconds()
