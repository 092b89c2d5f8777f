"""Display of the pending events while the end of a run waits for delivery."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence

from pte_tracking._delivery.backlog import SinkBacklog
from pte_tracking._store.printable import escape_controls
from pte_tracking._store.secrets import mask_secrets

_logger = logging.getLogger("pte_tracking")
_FIRST_LINE_SECONDS, _LINE_SECONDS = 0.5, 0.2  # until the first line on a terminal, and between two updates
_FIRST_MESSAGE_SECONDS, _MESSAGE_SECONDS = 2.0, 5.0  # the same for messages in the log
_ERASE_LINE = "\r\033[K"
_DEFAULT_WIDTH = 80  # of a terminal that reports no size


class WaitDisplay:
    """Shows which sinks a wait is for: as a line that is redrawn on a terminal, otherwise as messages in the log."""

    def __init__(self) -> None:
        # A program that turns messages off gets no line either.
        self._is_terminal = _logger.isEnabledFor(logging.INFO) and _is_terminal()
        self._next_time = time.monotonic() + (_FIRST_LINE_SECONDS if self._is_terminal else _FIRST_MESSAGE_SECONDS)
        self._has_line = False

    def show(self, pending: Sequence[SinkBacklog], remaining_seconds: float, activities: Mapping[str, str]) -> None:
        """Show the pending events if it is time for an update.

        Args:
            pending: Pending events of the sinks.
            remaining_seconds: Maximum time until the wait ends, in seconds.
            activities: What sinks are doing before they receive the first event, by key.
        """
        now = time.monotonic()
        if now < self._next_time:
            return
        self._next_time = now + (_LINE_SECONDS if self._is_terminal else _MESSAGE_SECONDS)
        if not self._is_terminal:
            texts = (str(sink._replace(reason=sink.reason or activities.get(sink.key))) for sink in pending)
            _logger.info("Waiting up to %.0f s for delivery: %s", remaining_seconds, "; ".join(texts))
            return
        text = f"Waiting up to {remaining_seconds:.0f} s (Ctrl-C loses no event): "
        text += "; ".join(
            f"{sink.key}: {activities[sink.key]}" if sink.key in activities else sink.short_text for sink in pending
        )
        text += "".join(f" ({sink.reason})" for sink in pending if sink.reason)
        with contextlib.suppress(OSError, ValueError):  # the terminal is closed
            # A longer line would wrap, and its first part would remain.
            width = (os.get_terminal_size(sys.stderr.fileno()).columns or _DEFAULT_WIDTH) - 1
            line = textwrap.shorten(escape_controls(mask_secrets(text)), width, placeholder=" ...")
            _write(_ERASE_LINE + line)
            self._has_line = True

    def clear(self) -> None:
        """Erase the line before other output."""
        if self._has_line:
            self._has_line = False
            with contextlib.suppress(OSError, ValueError):
                _write(_ERASE_LINE)


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # replaced, or closed
        return False
