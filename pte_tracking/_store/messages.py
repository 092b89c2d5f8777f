"""Messages of the library to its user, through the logger ``pte_tracking``."""

from __future__ import annotations

import logging
import sys
from types import FrameType

logger = logging.getLogger("pte_tracking")


class FallbackHandler(logging.Handler):
    """Handler that writes to standard error in programs that configure no logging.

    Messages always propagate. As soon as the program adds a handler of its own, this handler writes nothing, so that
    each message appears once.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if logger.handlers != [self] or logging.getLogger().handlers:
            return
        try:
            # One call, because the training and the delivery process share the terminal.
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def install_fallback_handler() -> None:
    """Show messages from level INFO, also in programs that configure no logging."""
    if not any(isinstance(handler, FallbackHandler) for handler in logger.handlers):
        logger.addHandler(FallbackHandler())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def is_handling_message() -> bool:
    """Whether a logging handler that handles a message of this package calls this function."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is logging.Logger.callHandlers.__code__:
            name: str = frame.f_locals["self"].name
            return name.split(".")[0] == logger.name
        frame = frame.f_back
    return False
