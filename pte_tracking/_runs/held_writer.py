"""Writer of a run before its directory is claimed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store.events import AnyEvent, Checkpoint, Number, Scalar
from pte_tracking._store.manifest import Sampling

_T = TypeVar("_T")
Writer: TypeAlias = "RunWriter | NullWriter | HeldWriter"


class Interim(NamedTuple):
    """Writer for the calls of handlers in the thread that opens or ends a run.

    Attributes:
        writer: Holds the calls.
        thread: ID of the thread.
        drops_messages: Whether messages of this package that a logging handler logs are dropped.
    """

    writer: HeldWriter
    thread: int
    drops_messages: bool


class HeldWriter:
    """Writer that keeps events in memory until it is known which run they belong to.

    Args:
        lock: Lock of the run.

    Attributes:
        manifest: Always None.
        files: Patterns passed to :meth:`add_files`.
    """

    manifest = None

    def __init__(self, lock: threading.RLock) -> None:
        self.files: list[str] = []
        self._lock = lock
        self._held: list[Callable[[Writer], object]] = []
        self._open_writer: Callable[[], Writer] | None = None

    @property
    def has_events(self) -> bool:
        """Whether events are held."""
        return bool(self._held)

    def release(self, open_writer: Callable[[], Writer]) -> None:
        """Write the held events with their original times. Later events are not held.

        Args:
            open_writer: Returns the writer of the open run.
        """
        with self._lock:
            held, self._held, self._open_writer = self._held, [], open_writer
            for write in held:
                write(open_writer())

    def begin(self, params: Mapping[str, Scalar], tags: Mapping[str, str], *, is_started: bool = False) -> None:
        """Do nothing."""

    def rewind(self) -> None:
        """Do nothing."""

    def resume_at(self, step: int) -> None:
        """Do nothing."""

    def add(self, kind: type[AnyEvent], *fields: Any, at: float | None = None) -> None:
        """Hold an event."""
        now = time.time() if at is None else at
        self._hold(lambda writer: writer.add(kind, *fields, at=now))

    def add_deferred(
        self,
        kind: type[AnyEvent],
        render: Callable[[], _T],
        store: Callable[[_T], Sequence[Any] | None],
        at: float | None = None,
    ) -> None:
        """Render the content of an event and hold it."""
        content, now = render(), time.time() if at is None else at

        def write(writer: Writer) -> None:
            fields = store(content)
            if fields is not None:
                writer.add(kind, *fields, at=now)

        self._hold(write)

    def add_files(self, pattern: str, *, is_written: bool = False) -> None:
        """Hold a pattern of files."""
        with self._lock:
            if self._open_writer is None:
                self.files.append(pattern.split("/")[0])
            else:
                self._open_writer().add_files(pattern, is_written=is_written)

    def position(self, step: int) -> RunPosition:
        """Raise, because the run has no position yet.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("The run has no position before it is opened. Call open() first.")

    def latest_values(self) -> dict[str, Number]:
        """Return no values."""
        return {}

    def recent_values(self, key: str) -> dict[int, Number]:
        """Return no values."""
        return {}

    def sync(self) -> None:
        """Do nothing."""

    def checkpoints(self) -> list[Checkpoint]:
        """Return an empty list."""
        return []

    def set_ranking(self, key: str, mode: Literal["min", "max"]) -> None:
        """Do nothing."""

    def set_sampling(self, sampling: Sampling) -> None:
        """Hold a request to sample system metrics."""
        self._hold(lambda writer: writer.set_sampling(sampling))

    def write_checkpoint_list(self) -> None:
        """Do nothing."""

    def _hold(self, write: Callable[[Writer], object]) -> None:
        with self._lock:
            if self._open_writer is None:
                self._held.append(write)
            else:  # another thread opened the run meanwhile
                write(self._open_writer())
