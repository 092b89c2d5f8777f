"""Exit status of the script, as observed when the interpreter ends.

The interpreter does not show a ``SystemExit`` to exit functions. Two observations replace it: a wrapper of ``sys.exit``
that remembers the status, and the last instruction of the frame of the main script, which tells whether an exception
left the script. A remembered status of a ``SystemExit`` that was caught does not count, because the script continued.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

#: Signals that end a process. Exceptions in handlers of other signals, such as of a timer, are errors.
_ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGABRT")
_RETURNS = ("RETURN_VALUE", "RETURN_CONST")


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


#: Frame of the main script. Empty if the script was not running when the first run was opened.
_main_frames: list[FrameType] = []
#: Last call of ``sys.exit`` by the main thread.
_last_exit: list[ScriptExit] = []
_is_watching = False


def watch_exit() -> None:
    """Observe the main script and the calls of ``sys.exit`` from now on. Only the first call has an effect."""
    global _is_watching
    if _is_watching:
        return
    _is_watching = True
    if not hasattr(sys, "ps1"):  # an interactive session has no script
        _main_frames[:] = _find_main_frame()
    sys.exit = _remember(sys.exit, 0)
    quitter = type(getattr(builtins, "exit", None))
    if quitter.__module__ == "_sitebuiltins":
        quitter.__call__ = _remember(quitter.__call__, 1)  # type: ignore[method-assign]


def script_exit() -> ScriptExit | None:
    """Return the ``SystemExit`` that left the main script.

    Returns:
        The exception. None if the script ran to its end, or if its end cannot be determined.
    """
    frame = next(iter(_main_frames), None)
    if frame is None or frame in _frames(sys._getframe()):
        return None
    executed = [item for item in dis.get_instructions(frame.f_code) if item.offset <= frame.f_lasti]
    if not executed or executed[-1].opname in _RETURNS:
        return None
    remembered = next(iter(_last_exit), None)
    # After a finally clause, the exception leaves at another instruction than that of the call.
    if remembered and (_is_same(frame, remembered.offset) or executed[-1].opname == "RERAISE"):
        return remembered
    return _raised_by_script(executed, frame.f_globals)


def is_by_signal(error: BaseException) -> bool:
    """Whether a handler of a signal that ends the process raised an exception."""
    handlers, trace = _signal_handlers(), error.__traceback__
    while trace is not None:
        if _is_handling(trace.tb_frame, handlers):
            return True
        trace = trace.tb_next
    return False


def is_interpreter_ending() -> bool:
    """Whether the ``__del__`` that calls this function was not called by Python code, as after a ``SystemExit``."""
    return sys._getframe(1).f_back is None


def _remember(original: Callable[..., Any], index: int) -> Callable[..., Any]:
    """Return a function that remembers the argument at an index, the exit status, and calls the original."""

    @functools.wraps(original)
    def exit(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is threading.main_thread():  # a SystemExit of another thread ends the thread
            frames, handlers = list(_frames(sys._getframe(1))), _signal_handlers()
            # A launcher that calls sys.exit() after the script does not replace the status of the script.
            for main in [frame for frame in _main_frames if frame in frames]:
                is_signal = any(_is_handling(frame, handlers) for frame in frames)
                code = arguments[index] if len(arguments) > index else options.get("code")
                _last_exit[:] = [ScriptExit(code, True, is_signal, main.f_lasti)]
        return original(*arguments, **options)

    return exit


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _find_main_frame() -> list[FrameType]:
    names = getattr(sys.modules.get("__main__"), "__dict__", None)
    start = sys._current_frames().get(threading.main_thread().ident or 0)
    found = [frame for frame in _frames(start) if frame.f_globals is names and frame.f_code.co_name == "<module>"]
    return found[-1:]


def _signal_handlers() -> dict[CodeType, int]:
    """Return the code of the handlers of the signals that end a process, and the signal."""
    handlers = {}
    for name in _ENDING_SIGNALS:
        handler: Any = signal.getsignal(getattr(signal, name))
        while isinstance(handler, functools.partial):
            handler = handler.func
        handler = getattr(handler, "__func__", handler)
        if not hasattr(handler, "__code__"):
            handler = inspect.getattr_static(type(handler), "__call__", None)
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            handlers[code] = int(getattr(signal, name))
    return handlers


def _is_handling(frame: FrameType, handlers: dict[CodeType, int]) -> bool:
    """Whether a frame is that of a handler that was called with the number of a signal."""
    if frame.f_code not in handlers:
        return False
    names, varargs, _, values = inspect.getargvalues(frame)
    passed = [values.get(name) for name in names] + list(values.get(varargs, ()) if varargs else ())
    return any(type(value) in (int, signal.Signals) and value in handlers.values() for value in passed)


def _is_same(frame: FrameType, offset: int | None) -> bool:
    """Whether an offset and the end of a frame are in the same instruction, which inline caches may follow."""
    starts = [item.offset for item in dis.get_instructions(frame.f_code)]
    return offset is not None and sum(start <= offset for start in starts) == sum(
        start <= frame.f_lasti for start in starts
    )


def _raised_by_script(executed: list[dis.Instruction], names: dict[str, Any]) -> ScriptExit:
    """Return the exception of a statement such as ``raise SystemExit(status)`` at the end of the script."""
    loads = [item for item in executed[-7:-1] if item.opname.startswith("LOAD")]
    if executed[-1].opname == "RAISE_VARARGS" and loads:
        if loads[-1].argval == "SystemExit":
            return ScriptExit()
        if len(loads) > 1 and loads[-2].argval == "SystemExit":
            if loads[-1].opname == "LOAD_NAME" and loads[-1].argval in names:
                return ScriptExit(names[loads[-1].argval])
            if loads[-1].opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
                return ScriptExit(loads[-1].argval)
    return ScriptExit(is_known=False)
