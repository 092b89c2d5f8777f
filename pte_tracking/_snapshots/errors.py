"""Exceptions of snapshots."""

from __future__ import annotations

import os


class SnapshotError(RuntimeError):
    """Raised when a snapshot cannot be used, for example because it is damaged.

    Args:
        path: Path of the snapshot.
        reason: Why the snapshot cannot be used.

    Attributes:
        path: Path of the snapshot, as a string.
        reason: Why the snapshot cannot be used.

    Example:
        >>> import os, tempfile
        >>> import torch
        >>> import pte_tracking as pte
        >>> out_dir = tempfile.mkdtemp()
        >>> manager = pte.ExtensionsManager(torch.nn.Linear(1, 1), 1, out_dir=out_dir, iters_per_epoch=1, sinks=[])
        >>> try:
        ...     manager.resume(os.path.join(out_dir, "snapshot_iter_7"))
        ... except pte.SnapshotError as error:
        ...     print(os.path.basename(error.path), "-", error.reason)
        snapshot_iter_7 - file not found. Pass 'latest', 'best', or a path.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason
