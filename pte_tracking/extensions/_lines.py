"""Lines of text for people, in a terminal or a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def tolerant_write(out: TextIO) -> Iterator[None]:
    """A block that writes a line, seen at once. A full disk, or a terminal that is gone, costs it and not the training.

    Args:
        out: Where it is written; anything with ``write``.
    """
    with contextlib.suppress(OSError):
        yield
        if hasattr(out, "flush"):
            out.flush()
