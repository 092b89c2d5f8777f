"""Text output to terminals and files."""

from __future__ import annotations

import contextlib
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
