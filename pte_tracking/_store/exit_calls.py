"""Calls of ``sys.exit`` and the frame of the main script, observed since the import of this package.

``sys.exit(main())`` looks up ``sys.exit`` before ``main()`` opens a run, so the first run would be too late.
"""

from __future__ import annotations

import builtins
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

from pte_tracking._platform.signals import ENDING_SIGNALS

_VARARGS = 0x04  # flag of a function with *args


class ScriptExit(NamedTuple):
    """``SystemExit`` that left the main script.

    Attributes:
        code: Argument of the exception.
        is_known: Whether ``code`` is known.
        is_by_signal: Whether a signal handler raised the exception.
        offset: Instruction of the main script that raised it.
    """

    code: Any = None
    is_known: bool = True
    is_by_signal: bool = False
    offset: int | None = None


#: Frame of the main script. Empty if no script was running, as in an interactive session.
main_frames: list[FrameType] = []
#: Last call of ``sys.exit`` by the main thread.
last_exit: list[ScriptExit] = []
_is_watching = False


def watch_exit() -> None:
    """Observe the main script and the calls of ``sys.exit`` from now on. Only the first call has an effect."""
    global _is_watching
    if _is_watching:
        return
    _is_watching = True
    if not hasattr(sys, "ps1"):  # an interactive session has no script
        main_frames[:] = _find_main_frame()
    sys.exit = _remember(sys.exit, 0)
    quitter = type(getattr(builtins, "exit", None))
    if quitter.__module__ == "_sitebuiltins":
        quitter.__call__ = _remember(quitter.__call__, 1)  # type: ignore[method-assign]


def is_by_signal(error: BaseException) -> bool:
    """Whether a handler of a signal that ends the process raised an exception."""
    handlers, trace = _signal_handlers(), error.__traceback__
    while trace is not None:
        if _is_handling(trace.tb_frame, handlers):
            return True
        trace = trace.tb_next
    return False


def _remember(original: Callable[..., Any], index: int) -> Callable[..., Any]:
    """Return a function that remembers the argument at an index, the exit status, and calls the original."""

    @functools.wraps(original)
    def exit(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is threading.main_thread():  # a SystemExit of another thread ends the thread
            frames, handlers = list(frames_of(sys._getframe(1))), _signal_handlers()
            # A launcher that calls sys.exit() after the script does not replace the status of the script.
            for main in [frame for frame in main_frames if frame in frames]:
                is_signal = any(_is_handling(frame, handlers) for frame in frames)
                code = arguments[index] if len(arguments) > index else options.get("code")
                last_exit[:] = [ScriptExit(code, True, is_signal, main.f_lasti)]
        return original(*arguments, **options)

    return exit


def frames_of(frame: FrameType | None) -> Iterator[FrameType]:
    """Iterate over a frame and its callers."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _find_main_frame() -> list[FrameType]:
    names = getattr(sys.modules.get("__main__"), "__dict__", None)
    start = sys._current_frames().get(threading.main_thread().ident or 0)
    found = [frame for frame in frames_of(start) if frame.f_globals is names and frame.f_code.co_name == "<module>"]
    return found[-1:]


def _signal_handlers() -> dict[CodeType, int]:
    """Return the code of the handlers of the signals that end a process, and the signal."""
    handlers = {}
    for number in ENDING_SIGNALS:
        handler: Any = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        handler = getattr(handler, "__func__", handler)
        if not hasattr(handler, "__code__"):
            handler = vars(type(handler)).get("__call__")
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            handlers[code] = int(number)
    return handlers


def _is_handling(frame: FrameType, handlers: dict[CodeType, int]) -> bool:
    """Whether a frame is that of a handler that was called with the number of a signal."""
    if frame.f_code not in handlers:
        return False
    code, values = frame.f_code, frame.f_locals
    names = code.co_varnames[: code.co_argcount + bool(code.co_flags & _VARARGS)]
    passed = [values.get(name) for name in names]
    passed += [item for value in passed if isinstance(value, tuple) for item in value]
    return any(type(value) in (int, signal.Signals) and value in handlers.values() for value in passed)
