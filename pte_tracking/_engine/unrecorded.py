"""Warning about reported values that no extension records."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pte_tracking._interface.extension import Extension, FunctionExtension, Manager

_logger = logging.getLogger("pte_tracking")


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
                "No extension is a LogReport, so that %r and all other reported values are not recorded. "
                "Add extensions.LogReport().",
                self._key,
            )


def _is_by_user(extension: Extension) -> bool:
    return isinstance(extension, FunctionExtension) or not type(extension).__module__.startswith("pte_tracking.")
