"""Changes that other programs make to the files of a sink."""

from __future__ import annotations

import os
from pathlib import Path


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    """Save a file as an editor does."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
