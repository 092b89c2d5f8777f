"""How a run ends that an exception, a signal, or the interpreter's end brings to its end."""

from __future__ import annotations

import sys
import traceback

from pte_tracking._store.events import Status
from pte_tracking._store.values import to_text


def outcome_of(error: BaseException | None) -> tuple[Status, str | None]:
    """How a run ends that an exception, or none, brings to its end, and what is said about it."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "FINISHED", None
    message = to_text(traceback.format_exception_only(error)[-1].strip())[:2000]
    # Shells and schedulers are told of a signal by an exit status above 128.
    is_signal = isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128
    return ("KILLED" if is_signal or isinstance(error, KeyboardInterrupt) else "FAILED"), message


def last_error() -> BaseException | None:
    """The exception that ends the interpreter, once it is known. In a notebook it ends a cell only."""
    if hasattr(sys, "ps1"):
        return None
    error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error
