"""Recent rows of a session: the latest values, and the detection of steps that go back."""

from __future__ import annotations

import logging
import operator
from collections import deque
from collections.abc import Mapping

from pte_tracking._store.events import Metrics, Number

_logger = logging.getLogger("pte_tracking")
_MAX_ROWS = 1000


class RowHistory:
    """Recent rows of a session. Log a warning when the step of a metric goes back, once.

    The training waits for :meth:`add`. A row is only kept there, and searched for only if an earlier row has a higher
    step. A metric that no row of the last 1000 contains is not reported.

    Args:
        latest_values: Metrics that were logged last before the session, by key.
    """

    def __init__(self, latest_values: Mapping[str, Number | str]) -> None:
        self._latest_values = dict(latest_values)
        self._rows: list[Metrics] = []
        self._read_rows = 0
        self._max_step = -(2**63)
        self._is_reported = False

    def add(self, row: Metrics) -> None:
        """Add a row that was logged.

        Args:
            row: The row.
        """
        rows = self._rows
        if row.step >= self._max_step:
            self._max_step = row.step
        elif not self._is_reported:
            self._check(row)
        rows.append(row)
        if len(rows) == 2 * _MAX_ROWS:
            self.latest_values()
            del rows[:_MAX_ROWS]
            self._read_rows = len(rows)

    def latest_values(self) -> dict[str, Number]:
        """Return the metrics that were logged last, by key, independent of their steps."""
        points = map(operator.attrgetter("points"), self._rows[self._read_rows :])
        # Without a Python loop: the training waits here.
        deque(map(self._latest_values.update, points), maxlen=0)
        self._read_rows = len(self._rows)
        return self._latest_values.copy()  # type: ignore[return-value]  # logged values are numbers

    def recent_values(self, key: str) -> dict[int, Number]:
        """Return the values of a metric in the kept rows by step, the step that was logged last at the end.

        Args:
            key: Key of the metric.
        """
        values: dict[int, Number] = {}
        for row in self._rows:
            if key in row.values:
                values.pop(row.step, None)
                values[row.step] = row.values[key]  # type: ignore[assignment]  # logged values are numbers
        return values

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
        _logger.warning(
            "%.300r was logged at step %d after step %d. Backends draw one curve per metric, so points at equal steps "
            "overlap. Log increasing steps, or use another key. Later steps that go back are not reported.",
            key,
            step,
            earlier_step,
        )
