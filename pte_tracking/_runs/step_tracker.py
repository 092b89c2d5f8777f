"""Detection of metrics whose steps go back."""

from __future__ import annotations

import logging
from collections import deque

from pte_tracking._store.events import Metrics

_logger = logging.getLogger("pte_tracking")
_MAX_ROWS = 1000


class StepTracker:
    """Recent rows of a session. Log a warning when the step of a metric goes back, once.

    The training waits for :meth:`add`, so a row is searched for only if an earlier row has a higher step. A metric that
    no row of the last 1000 contains is not reported.
    """

    def __init__(self) -> None:
        self._max_step = -(2**63)
        self._rows: deque[Metrics] = deque(maxlen=_MAX_ROWS)
        self._is_reported = False

    def add(self, row: Metrics) -> None:
        """Add a row that was logged.

        Args:
            row: The row.
        """
        if row.step >= self._max_step:
            self._max_step = row.step
        elif not self._is_reported:
            self._check(row)
        self._rows.append(row)

    def _check(self, row: Metrics) -> None:
        keys = set(row.values)
        for earlier in reversed(self._rows):
            if earlier.log != row.log or keys.isdisjoint(earlier.values):
                continue
            if earlier.step > row.step:
                key = next(key for key in row.values if key in keys and key in earlier.values)
                self._report(key, row.step, earlier.step)
                return
            keys.difference_update(earlier.values)
            if not keys:
                return

    def _report(self, key: str, step: int, earlier_step: int) -> None:
        self._is_reported = True
        self._rows.clear()
        _logger.warning(
            "%.300r was logged at step %d after step %d. Backends draw one curve per metric, so points at equal steps "
            "overlap. Log increasing steps, or use another key. Later steps that go back are not reported.",
            key,
            step,
            earlier_step,
        )
