"""What is wrong with a snapshot."""

from __future__ import annotations

import os


class SnapshotError(RuntimeError):
    """A snapshot cannot be used.

    Attributes:
        path: The file.
        reason: Why.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason
