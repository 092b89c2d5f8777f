"""Messages of the library to its user, through the logger ``pte_tracking``."""

from __future__ import annotations

import logging
import sys
from types import FrameType
from typing import TextIO

from pte_tracking._store.printable import escape_controls
from pte_tracking._store.secrets import mask_secrets

logger = logging.getLogger("pte_tracking")


class SafeFormatter(logging.Formatter):
    """Formatter that masks secrets and escapes control characters, which may come from files and servers."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return escape_controls(mask_secrets(super().format(record)))


class FallbackHandler(logging.Handler):
    """Handler that writes to standard error in programs that configure no logging.

    Messages always propagate. As soon as the program adds a handler of its own, this handler writes nothing, so that
    each message appears once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(SafeFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        if logger.handlers != [self] or logging.getLogger().handlers:
            return
        try:
            # One call, because the training and the delivery process share the terminal.
            write_above_bars(self.format(record) + "\n", sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def write_above_bars(text: str, out: TextIO) -> None:
    """Write text to a stream, above the progress bars of tqdm that are on the terminal.

    Args:
        text: Lines of text, with a line break at the end.
        out: Output stream.
    """
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    # Only if there are bars: tqdm creates a lock for processes before it writes.
    if bars is not None and len(getattr(bars, "_instances", ())):
        bars.write(text, out, end="")
    else:
        out.write(text)


def install_fallback_handler() -> None:
    """Show messages from level INFO, also in programs that configure no logging."""
    if not any(isinstance(handler, FallbackHandler) for handler in logger.handlers):
        logger.addHandler(FallbackHandler())
        logger.addFilter(_mask)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def configure_logging(text_format: str) -> None:
    """Write warnings of a program of this package to standard error.

    Args:
        text_format: Format of a line; see :class:`logging.Formatter`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter(text_format))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def _mask(record: logging.LogRecord) -> bool:
    """Remove secrets from a message, which the handlers of the user's program may store."""
    try:
        message = record.getMessage()
    except Exception:  # the handlers report it
        return True
    masked = mask_secrets(message)
    if masked != message:
        record.msg, record.args = masked, None
    return True


def is_handling_message() -> bool:
    """Whether a logging handler that handles a message of this package calls this function."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is logging.Logger.callHandlers.__code__:
            name: str = frame.f_locals["self"].name
            return name.split(".")[0] == logger.name
        frame = frame.f_back
    return False
