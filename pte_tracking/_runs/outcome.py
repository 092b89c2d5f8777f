"""Status of a run that an exception or the end of the interpreter ends."""

from __future__ import annotations

import sys
import traceback

from pte_tracking._store.events import Status
from pte_tracking._store.values import to_text


def outcome_of(error: BaseException | None) -> tuple[Status, str | None]:
    """Return the status and the error message of a run.

    Args:
        error: Exception that ended the run. None if it finished.

    Returns:
        ``"FINISHED"`` and None without an error or after ``sys.exit(0)``. ``"KILLED"`` after an interrupt or an exit
        status above 128. ``"FAILED"`` otherwise.
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "FINISHED", None
    message = to_text(traceback.format_exception_only(error)[-1].strip())[:2000]
    # By convention, an exit status above 128 reports a signal to shells and schedulers.
    is_signal = isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128
    return ("KILLED" if is_signal or isinstance(error, KeyboardInterrupt) else "FAILED"), message


def last_error() -> BaseException | None:
    """Return the uncaught exception that ends the interpreter, or None.

    In an interactive session, an uncaught exception does not end the interpreter.
    """
    if hasattr(sys, "ps1"):
        return None
    error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error
