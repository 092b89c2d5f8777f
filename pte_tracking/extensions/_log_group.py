"""Data points that several LogReports of one run have in common."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Iterable, Sequence

from pte_tracking._runs.run import Run

_logger = logging.getLogger("pte_tracking")


class LogReportGroup:
    """LogReports of one run, which write one data point per key and step together.

    Args:
        run: The run.

    Attributes:
        is_shared: Whether the run has several LogReports.
    """

    def __init__(self, run: Run) -> None:
        # The JSON log has a file for each LogReport.
        self._sinks = frozenset(sink.name for sink in run.sinks if not sink.limits.separate_logs)
        self._size = 0
        self.is_shared = False
        self._step: int | None = None
        self._written: dict[str, list[tuple[str, frozenset[str]]]] = {}
        self._has_warned = False

    def join(self, sinks: Sequence[str] | None) -> frozenset[str]:
        """Add a LogReport, and return the sinks with data points that receive its rows.

        Args:
            sinks: Names of the sinks that the LogReport selects; None for all.
        """
        self._size += 1
        self.is_shared = self._size > 1
        if sinks is None:
            return self._sinks
        return self._sinks & {re.sub(r"-\d+$", "", name) for name in sinks}  # The second sink of a kind is mlflow-2.

    def claim(self, keys: Iterable[str], step: int, log: str, sinks: frozenset[str]) -> list[str]:
        """Return the keys whose data points at a step all these sinks get from another LogReport.

        Args:
            keys: Keys to write.
            step: Step of the data points.
            log: File name of the JSON log of the LogReport.
            sinks: Sinks that receive the data points.
        """
        if not self.is_shared:
            return []
        if step != self._step:
            self._step, self._written = step, {}
        covered = []
        for key in keys:
            writers = self._written.setdefault(key, [])
            if any(sinks <= others for other, others in writers if other != log):
                covered.append(key)
            writers.append((log, sinks))
        return covered

    def warn(self, keys: Iterable[str], log: str, sinks: frozenset[str]) -> None:
        """Log a warning, once, if another LogReport has written one of these keys for a common sink at this step."""
        if self._has_warned:
            return
        for key in keys:
            for other, others in self._written.get(key, ()):
                if other != log and others & sinks:
                    self._has_warned = True
                    _logger.warning(
                        "Two LogReports, of %r and %r, log %r at step %d. The value of the "
                        "LogReport that was registered first is used at common steps for %s. Select sinks with "
                        "LogReport(sinks=[...]).",
                        *(other, log, key, self._step, ", ".join(map(repr, sorted(others & sinks)))),
                    )
                    return


_groups: weakref.WeakKeyDictionary[Run, LogReportGroup] = weakref.WeakKeyDictionary()


def group_of(run: Run) -> LogReportGroup:
    """Return the group of the LogReports of a run."""
    if run not in _groups:
        _groups[run] = LogReportGroup(run)
    return _groups[run]
