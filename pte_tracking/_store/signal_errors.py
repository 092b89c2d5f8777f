"""Distinction between exceptions of signal handlers and failures of this package's own operations."""

from __future__ import annotations

import signal
from types import CodeType, FrameType
from typing import Any


def is_from_signal_handler(error: BaseException) -> bool:
    """Whether an exception was raised by a signal handler, such as one that implements a timeout.

    Such an exception belongs to the user, even if it interrupted a call that ignores its own failures.

    Args:
        error: The caught exception.
    """
    trace, handlers = error.__traceback__, None
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        if _receives_frame(frame):
            return True
        handlers = _installed_handlers() if handlers is None else handlers
        if frame.f_code in handlers:
            return True
    return False


def raise_from_signal_handler(error: BaseException) -> None:
    """Raise an exception again if a signal handler raised it."""
    if is_from_signal_handler(error):
        raise error


def _receives_frame(frame: FrameType) -> bool:
    """Whether a function was called with a signal number and the interrupted frame. It may be uninstalled by now."""
    count = frame.f_code.co_argcount
    names = frame.f_code.co_varnames[: count + bool(frame.f_code.co_flags & 0x04)]
    values = [frame.f_locals.get(name) for name in names]
    values += [item for value in values if isinstance(value, tuple) for item in value]
    return frame.f_back is not None and any(value is frame.f_back for value in values)


def _installed_handlers() -> set[CodeType]:
    codes: set[CodeType] = set()
    for number in signal.valid_signals():
        function: Any = signal.getsignal(number)
        function = getattr(function, "func", function)  # of a functools.partial
        function = getattr(function, "__func__", function)  # of a method
        if not hasattr(function, "__code__"):
            function = vars(type(function)).get("__call__")
        if hasattr(function, "__code__"):
            codes.add(function.__code__)
    return codes
