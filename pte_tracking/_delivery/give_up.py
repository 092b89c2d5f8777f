"""End of a delivery that does not succeed for a long time."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.status import read_status

_logger = logging.getLogger("pte_tracking")

#: Time without success after the end of a run, after which the delivery in the background ends. A server that does not
#: return within a day is usually replaced by another one.
MAX_FAILING_SECONDS = 24 * 3600.0
_CHECKS = 1440  # of the status of the run until the time is over: one per minute


class GiveUpTimer:
    """Time since the last success of a delivery, or since the end of its run.

    Args:
        directory: The run directory.
        max_seconds: Time after which the delivery ends.

    Attributes:
        has_ended: Whether the time is over.
    """

    def __init__(self, directory: Path, max_seconds: float) -> None:
        self._directory = directory
        self._max_seconds = max_seconds
        self._check_time = self._running_time = time.monotonic()
        self.has_ended = False

    def is_over(self, idle_seconds: float) -> bool:
        """Whether the time is over, which is logged.

        Args:
            idle_seconds: Seconds since the last success.
        """
        now = time.monotonic()
        if now - self._check_time > self._max_seconds / _CHECKS:
            self._check_time = now
            if self._is_running():
                self._running_time = now
        if min(idle_seconds, now - self._running_time) <= self._max_seconds:
            return False
        self.has_ended = True
        _logger.error(
            "Delivery ended, because it did not succeed for %.3g hours. To deliver the pending events, run: "
            "pte-tracking sync %s",
            self._max_seconds / 3600,
            self._directory,
        )
        return True

    def _is_running(self) -> bool:
        try:
            return read_status(self._directory) == "RUNNING"
        except (OSError, RunNotFoundError):
            return False
