"""Exit status of the script, as observed when the interpreter ends.

The interpreter does not show a ``SystemExit`` to exit functions. Two observations replace it: a wrapper of ``sys.exit``
that remembers the status, and the last instruction of the frame of the main script, which tells whether an exception
left the script. A remembered status of a ``SystemExit`` that was caught does not count, because the script continued.
"""

from __future__ import annotations

import dis
import sys
from types import FrameType
from typing import Any

from pte_tracking._store.exit_calls import ScriptExit, frames_of, last_exit, main_frames

_RETURNS = ("RETURN_VALUE", "RETURN_CONST")


def script_exit() -> ScriptExit | None:
    """Return the ``SystemExit`` that left the main script.

    Returns:
        The exception. None if the script ran to its end, or if its end cannot be determined.
    """
    frame = next(iter(main_frames), None)
    if frame is None or frame in frames_of(sys._getframe()):
        return None
    executed = [item for item in dis.get_instructions(frame.f_code) if item.offset <= frame.f_lasti]
    if not executed or executed[-1].opname in _RETURNS:
        return None
    remembered = next(iter(last_exit), None)
    # After a finally clause, the exception leaves at another instruction than that of the call.
    if remembered and (_is_same(frame, remembered.offset) or executed[-1].opname == "RERAISE"):
        return remembered
    return _raised_by_script(executed, frame.f_globals)


def is_interpreter_ending() -> bool:
    """Whether the ``__del__`` that calls this function was not called by Python code, as after a ``SystemExit``."""
    return sys._getframe(1).f_back is None


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
