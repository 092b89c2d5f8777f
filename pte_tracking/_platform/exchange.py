"""Exchange of two names in one step, which only Linux offers."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CURRENT_DIRECTORY = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE


def exchange_names(first: Path, second: Path) -> bool:
    """Exchange two names atomically. Return False if the system or the file system, such as NFS, does not support it.

    Any other failure returns False, too: a rename in its place raises the error.
    """
    # Python has no function for it.
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    return not rename(_CURRENT_DIRECTORY, os.fsencode(first), _CURRENT_DIRECTORY, os.fsencode(second), _EXCHANGE)
