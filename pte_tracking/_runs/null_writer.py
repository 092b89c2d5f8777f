"""Writer for processes that write nothing: ranks other than 0 and forked children."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store.events import AnyEvent, Checkpoint, Number, Scalar, Status
from pte_tracking._store.manifest import Manifest, Sampling

_logger = logging.getLogger("pte_tracking")


class ForkedRun(NamedTuple):
    """Run of the parent process, in a forked child.

    Attributes:
        directory: Run directory.
        writer: Writer of the parent. None if the run was not open.
        manifest: Manifest of the run. None if the run was not open.
        pid: Process ID of the parent.
    """

    directory: Path
    writer: RunWriter | None
    manifest: Manifest | None
    pid: int


class NullWriter:
    """Writer with the methods of :class:`~pte_tracking._runs.writer.RunWriter` that drops all events.

    Ranks other than 0 drop events silently, because rank 0 writes them. A forked child logs one warning.

    Args:
        parent: Run of the parent process, in a forked child. None on a rank other than 0.

    Attributes:
        manifest: Manifest of the run. None until :meth:`attach` on a rank other than 0.
    """

    def __init__(self, parent: ForkedRun | None = None) -> None:
        self.manifest: Manifest | None = None if parent is None else parent.manifest
        self._parent = parent
        self._should_warn = parent is not None

    def attach(self, manifest: Manifest) -> None:
        """Set the manifest that rank 0 has opened."""
        self.manifest = manifest

    def begin(self, params: Mapping[str, Scalar], tags: Mapping[str, str], *, is_started: bool = False) -> None:
        """Do nothing."""

    def rewind(self) -> None:
        """Do nothing."""

    def resume_at(self, step: int) -> None:
        """Do nothing."""

    def add(self, kind: type[AnyEvent], *fields: Any, at: float | None = None) -> None:
        """Drop an event."""
        if self._parent and self._should_warn:
            self._should_warn = False
            _logger.warning(
                "A forked process writes nothing to the run in %s, which belongs to the training process %d. Log in "
                "that process, or create the Run after the fork.",
                self._parent.directory,
                self._parent.pid,
            )

    def add_deferred(
        self,
        kind: type[AnyEvent],
        render: Callable[[], Any],
        store: Callable[[Any], Sequence[Any] | None],
        at: float | None = None,
    ) -> None:
        """Drop an event without rendering its content."""
        self.add(kind)

    def add_files(self, pattern: str, *, is_written: bool = False) -> None:
        """Do nothing."""

    def position(self, step: int) -> RunPosition:
        """Return the position at which the parent process was forked.

        Raises:
            RuntimeError: On a rank other than 0.
        """
        if self._parent is None or self._parent.writer is None:
            raise RuntimeError("The position of the run is available on rank 0 only. Call position() there.")
        return self._parent.writer.position(step)

    def latest_values(self) -> dict[str, Number]:
        """Return no values."""
        return {}

    def recent_values(self, key: str) -> dict[int, Number]:
        """Return no values."""
        return {}

    def sync(self) -> None:
        """Do nothing."""

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints at the fork. Empty on a rank other than 0."""
        return self._parent.writer.checkpoints() if self._parent and self._parent.writer else []

    def set_ranking(self, key: str, mode: Literal["min", "max"]) -> None:
        """Do nothing."""

    def set_sampling(self, sampling: Sampling) -> None:
        """Do nothing."""

    def write_checkpoint_list(self) -> None:
        """Do nothing."""

    def replace_end(self) -> None:
        """Do nothing."""

    def finish(self, status: Status, error: str | None) -> Status:
        """Return the status."""
        return status

    def close(self, status: Status) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def wait(self, timeout: float) -> None:
        """Do nothing."""
