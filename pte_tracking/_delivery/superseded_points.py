"""Superseded data points that a backend cannot delete, and the values that differ in the second pass."""

from __future__ import annotations

import logging
import re
from typing import Any

from pte_tracking._store.events import Metrics, Number

_logger = logging.getLogger("pte_tracking")
#: Keys of values that depend on the clock or on the load of the machine. They differ in every pass.
_WALL_CLOCK_KEY = re.compile(
    r"\Asystem/|\Amonitor/(data_wait_share|gpu_)|per_s\Z|/s\Z|(?<![a-z])"
    r"(time|times|walltime|elapsed|duration|latency|timestamp|eta|throughput|speed|fps|ips"
    r"|secs?|seconds?|ms|milliseconds?|minutes?|hours?)(?![a-z])",
    re.IGNORECASE,
)


class SupersededPoints:
    """Data points that the backend keeps, so no second one is delivered for their keys and steps.

    Args:
        sink_key: Key of the sink in the run.
    """

    def __init__(self, sink_key: str) -> None:
        self._sink_key = sink_key
        self.clear()

    def clear(self) -> None:
        """Forget all data points and differences."""
        self._values: dict[tuple[str, int], Number] = {}
        self._last_step = -1
        self._difference_count = 0
        self._first_difference: tuple[str, int, Any, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, event: Metrics) -> None:
        """Add the data points of a superseded event."""
        self._last_step = max(self._last_step, event.step)
        for key, value in event.points.items():
            # The backend keeps the first value of a key and step.
            self._values.setdefault((key, event.step), value)  # type: ignore[arg-type]  # decoded as numbers

    def select_new(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values that the backend does not have, and count those that differ from the ones it keeps.

        Args:
            step: Step of the values. Steps ascend, so the data points are released after the last one.
            values: Values by key.
        """
        if step > self._last_step:
            self.report()
            self.clear()
            return values
        for key, value in values.items():
            kept = self._values.get((key, step))
            if kept is not None and _differ(kept, value) and not _WALL_CLOCK_KEY.search(key):
                self._difference_count += 1
                self._first_difference = self._first_difference or (key, step, value, kept)
        return {key: value for key, value in values.items() if (key, step) not in self._values}

    def report(self) -> None:
        """Log how many values differed since the last report, if any."""
        if self._first_difference is None:
            return
        _logger.warning(
            "%s: the run was rewound, and %d new value%s (first: %r at step %d: %r, previously %r). If the script is "
            "unchanged and deterministic, the loop carries a variable that is not in state_objects. This backend "
            "cannot delete data points and keeps the previous values. To deliver the new values, use a sink that "
            'starts a new run after a rewind, such as MLflowSink(on_rewind="fork").',
            self._sink_key,
            self._difference_count,
            " differs" if self._difference_count == 1 else "s differ",
            *self._first_difference,
        )
        self._difference_count, self._first_difference = 0, None


def _differ(first: Any, second: Any) -> bool:
    are_both_nan = first != first and second != second
    return bool(first != second) and not are_both_nan
