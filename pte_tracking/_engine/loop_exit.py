"""How a ``for`` loop over a generator was left, as observed when the generator is closed."""

from __future__ import annotations

import dis
from types import FrameType

#: Instructions that remove the iterator of a loop that a ``break`` or ``return`` leaves, or that a wrapper such as
#: ``itertools.islice`` ends. An exception leaves a loop at the instruction that raised it.
_STATEMENTS = frozenset({"POP_TOP", "POP_ITER", "END_FOR", "FOR_ITER"})


def is_left_by_statement(frame: FrameType | None) -> bool:
    """Whether a ``for`` loop was left by a statement, such as ``break``, and not by an exception.

    Python closes the iterator of a loop in both cases, and does not show the exception to it.

    Args:
        frame: Frame that was current when the iterator was closed.
    """
    while frame is not None:
        offset = frame.f_lasti
        name = next((item.opname for item in dis.get_instructions(frame.f_code) if item.offset == offset), "")
        if name != "YIELD_VALUE":  # Otherwise, another generator over the loop was closed in the same way.
            return name in _STATEMENTS
        frame = frame.f_back
    return False
