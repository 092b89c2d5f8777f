"""Log file of each run in a process that delivers several runs."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pte_tracking._store.layout import DELIVERY_LOG
from pte_tracking._store.messages import SafeFormatter
from pte_tracking._store.owned_files import open_owned

#: Log of the run that the current thread delivers.
_current_log: contextvars.ContextVar[TextIO | None] = contextvars.ContextVar("run_log", default=None)


class _RunLogHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not generic in Python 3.10
    """Handler that writes to the log of the run that logs, and otherwise to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = _current_log.get() or sys.stderr
        super().emit(record)


def configure_run_logs() -> None:
    """Write the messages of pte_tracking, and the warnings of other packages, to the log of the run."""
    handler = _RunLogHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("pte_tracking").setLevel(logging.INFO)


@contextlib.contextmanager
def logging_to_run(directory: Path) -> Iterator[None]:
    """Write what this context logs to the log of a run.

    Args:
        directory: The run directory.

    Raises:
        OSError: If the log cannot be opened.
    """
    with open(open_owned(directory / DELIVERY_LOG, directory, os.O_APPEND), "a", errors="replace") as log:
        token = _current_log.set(log)
        try:
            yield
        finally:
            _current_log.reset(token)
