"""Text output to terminals and files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def tolerant_write(out: TextIO) -> Iterator[None]:
    """Flush the output of a block and suppress operating system errors.

    A full disk or a closed terminal loses the output but does not stop the training.

    Args:
        out: Output stream, an object with the method ``write``.
    """
    with contextlib.suppress(OSError):
        yield
        if hasattr(out, "flush"):
            out.flush()


def terminal_size(out: TextIO) -> os.terminal_size | None:
    """Return the size of the terminal that a stream writes to, with 0 for an unknown size. None without a terminal.

    Args:
        out: Output stream.
    """
    try:
        return os.get_terminal_size(out.fileno())
    except (AttributeError, OSError, ValueError):
        return None
