"""How a ``for`` loop over a generator was left, as observed when the generator is closed."""

from __future__ import annotations

import dis
import gc
from types import FrameType, TracebackType

#: Instructions that remove the iterator of a loop that a ``break`` or ``return`` leaves. An exception leaves a loop at
#: the instruction that raised it.
_STATEMENTS = frozenset({"POP_TOP", "POP_ITER", "END_FOR"})


def is_left_by_statement(frame: FrameType | None) -> bool:
    """Whether a ``for`` loop was left by a statement, such as ``break``, and not by an exception.

    Python closes the iterator of a loop in both cases, and does not show the exception to it.

    Args:
        frame: Frame that was current when the iterator was closed.
    """
    while frame is not None:
        offset = frame.f_lasti
        name = next((item.opname for item in dis.get_instructions(frame.f_code) if item.offset == offset), "")
        if name == "FOR_ITER":  # A wrapper such as itertools.islice or map ended, or raised an exception.
            return not _is_unwound(frame)
        if name != "YIELD_VALUE":  # Otherwise, another generator over the loop was closed in the same way.
            return name in _STATEMENTS
        frame = frame.f_back
    return False


def _is_unwound(frame: FrameType) -> bool:
    """Whether an exception was raised at the current instruction of a frame.

    Python creates its traceback before it closes iterators, and hides the exception from them.
    """
    return any(
        isinstance(item, TracebackType) and item.tb_frame is frame and item.tb_lasti == frame.f_lasti
        for item in gc.get_referrers(frame)
    )
