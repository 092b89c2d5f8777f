"""Writer for processes that write nothing: ranks other than 0 and forked children."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store.events import AnyEvent, Checkpoint, Number, Scalar, Status
from pte_tracking._store.manifest import Manifest

_logger = logging.getLogger("pte_tracking")


class NullWriter:
    """Writer with the methods of :class:`~pte_tracking._runs.writer.RunWriter` that drops all events.

    Ranks other than 0 drop events silently, because rank 0 writes them. A forked child logs one warning.

    Args:
        parent: Writer of the parent process, in a forked child. None on a rank other than 0.

    Attributes:
        manifest: Manifest of the run. None until :meth:`attach` on a rank other than 0.
    """

    def __init__(self, parent: RunWriter | None = None) -> None:
        self.manifest: Manifest | None = None if parent is None else parent.manifest
        self._parent = parent
        self._should_warn = parent is not None

    def attach(self, manifest: Manifest) -> None:
        """Set the manifest that rank 0 has opened."""
        self.manifest = manifest

    def begin(self, params: Mapping[str, Scalar], tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def rewind(self) -> None:
        """Do nothing."""

    def add(self, kind: type[AnyEvent], *fields: Any, at: float | None = None) -> None:
        """Drop an event."""
        if self._should_warn:
            self._should_warn = False
            _logger.warning(
                "A forked process writes nothing to the run %r. Log in the training process.",
                self.manifest and self.manifest.name,
            )

    def add_deferred(
        self, kind: type[AnyEvent], render: Callable[[], Any], store: Callable[[Any], Sequence[Any] | None]
    ) -> None:
        """Drop an event without rendering its content."""
        self.add(kind)

    def add_files(self, pattern: str) -> None:
        """Do nothing."""

    def position(self, step: int) -> RunPosition:
        """Return the position at which the parent process was forked.

        Raises:
            RuntimeError: On a rank other than 0.
        """
        if self._parent is None:
            raise RuntimeError("The position of the run is available on rank 0 only. Call position() there.")
        return self._parent.position(step)

    def latest_values(self) -> dict[str, Number]:
        """Return no values."""
        return {}

    def sync(self) -> None:
        """Do nothing."""

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints at the fork. Empty on a rank other than 0."""
        return [] if self._parent is None else self._parent.checkpoints()

    def write_checkpoint_list(self) -> None:
        """Do nothing."""

    def finish(self, status: Status, error: str | None) -> Status:
        """Return the status."""
        return status

    def close(self, status: Status, timeout: float) -> None:
        """Do nothing."""
