"""Warnings about reported values that no extension records."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pte_tracking._interface.extension import PRIORITY_READER, Extension, Manager
from pte_tracking._interface.function_extension import FunctionExtension
from pte_tracking.extensions.log_report import LogReport

_logger = logging.getLogger("pte_tracking")
_MAX_KEYS = 20  # keys for which a warning is logged; an extension may report any number of keys


class UnrecordedValues(Extension):
    """Internal extension of a training without a LogReport that logs a warning if values are reported.

    Extensions of the user may record the values. Then the warning is logged at the end of the training, and only if the
    run has no rows.

    Args:
        extensions: The extensions of the training.
    """

    def __init__(self, extensions: Iterable[Extension]) -> None:
        self._may_be_recorded = any(map(_is_by_user, extensions))
        self._key: str | None = None
        self._is_done = False

    def __call__(self, manager: Manager) -> None:
        if self._key is None and manager.observation:
            self._key = next(iter(manager.observation))
            if not self._may_be_recorded:
                self._warn()

    def finalize(self, manager: Manager) -> None:
        if self._key is not None and not self._is_done and not manager.run.rows():
            self._warn()

    def _warn(self) -> None:
        if not self._is_done:
            self._is_done = True
            _logger.warning(
                "No extension is a LogReport, so %r and all other reported values are not recorded. "
                "Add extensions.LogReport().",
                self._key,
            )


class LateValues:
    """Warnings about values that extensions report after all LogReports ran, one for each key.

    Args:
        log_reports: The LogReports of the training.
    """

    def __init__(self, log_reports: Iterable[LogReport]) -> None:
        self._log_reports = list(log_reports)
        self._keys: set[str] = set()

    def warn(self, keys: Iterable[str], extension: str) -> None:
        """Log a warning for each key that a LogReport would record and that has had none.

        Args:
            keys: The keys.
            extension: Name of the extension that has reported them.
        """
        for key in keys:
            if key in self._keys or len(self._keys) >= _MAX_KEYS:
                continue
            self._keys.add(key)
            if any(log_report.selects(key) for log_report in self._log_reports):
                _logger.warning(
                    "%r was reported by the extension %r after the LogReport ran, and is not recorded. Register the "
                    "extension with priority=pte_tracking.PRIORITY_WRITER, or PRIORITY_EDITOR if it computes the value "
                    "from reported ones.",
                    key,
                    extension,
                )


def may_report(extension: Extension) -> bool:
    """Return whether an extension may report values, also if it is registered with a lower priority."""
    return _is_by_user(extension) or type(extension).priority > PRIORITY_READER


def _is_by_user(extension: Extension) -> bool:
    return isinstance(extension, FunctionExtension) or not type(extension).__module__.startswith("pte_tracking.")
