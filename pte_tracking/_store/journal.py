"""The append-only file of a run's events: append, read from a position, mend a torn tail.

A position is a number of bytes from the file's start, always between two lines. The journal is never rewritten: a
:class:`~pte_tracking._store.events.Rewound` event takes earlier ones back, and what counts is the *effective history*.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent, Rewound, RunEnded, RunStarted
from pte_tracking._store.journal_reader import effective_ranges, read_effective, read_lines_reversed, seq_at

_logger = logging.getLogger("pte_tracking")
_MAX_PENDING_BYTES = 64 << 20
_RETRY_SECONDS = 1.0  # seconds between attempts to write to a full disk

_E = TypeVar("_E", bound=AnyEvent)


class JournalPosition(NamedTuple):
    """A point between two events."""

    seq: int
    position: int


class Journal:
    """The writing end. Appending is one ``write``: an event is with the operating system before the call returns.

    On a full disk training goes on: events are held in memory, up to 64 MiB, and written once there is space; what
    comes beyond that is dropped and counted. The file stays readable all the while.

    Args:
        path: The file; made if it is not there, and cut after its last whole event.

    Attributes:
        position: Where the last event ends.
        dropped: How many events were lost to a full disk.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._path = path
        self._seq, self.position = _truncate_torn_tail(self._fd, path)
        self._pending = bytearray()
        self._retry_time = 0.0
        self._lock = threading.Lock()
        self.dropped = 0

    @property
    def end(self) -> JournalPosition:
        """The point after the last event."""
        with self._lock:
            return JournalPosition(self._seq, self.position)

    def append(self, kind: type[_E], *fields: Any, at: float | None = None) -> _E | None:
        """Write an event.

        Args:
            kind: Its class.
            fields: Its fields after ``seq`` and ``time``.
            at: When it happened; now by default.

        Returns:
            The event; None if it had to be dropped, since the disk has long been full.
        """
        with self._lock:
            event = kind(self._seq + 1, time.time() if at is None else at, *fields)
            line = events.encode(event)
            if self._pending and not self._has_room_for(line):
                self.dropped += 1
                return None
            try:
                self._seq += 1
                self.position += len(line)
                # After a part of a line its rest is written first: readers wait for the newline.
                written = 0 if self._pending else self._write(line)
                if written < len(line):
                    self._pending += line[written:]
            except BaseException:  # Ctrl-C came between two of these: what the file holds is what counts
                if not self._pending:
                    self._seq, self.position = _truncate_torn_tail(self._fd, self._path)
                raise
            return event

    def rewind(self, target: JournalPosition, step: int) -> None:
        """Take back what came after an earlier point.

        A point that was itself taken back is reached by going back to where the two histories part, and writing the
        events from there to the point again, at their own times.

        Args:
            target: The point.
            step: Iterations done there.
        """
        if target == self.end:
            return
        if seq_at(self._path, target.position) != target.seq:
            _logger.warning(
                "%s: it does not reach the snapshot's event %d; nothing is taken back", self._path, target.seq
            )
            return
        common_end = _common_end(effective_ranges(self._path), effective_ranges(self._path, target.position))
        restored = [event for event, _ in read_effective(self._path, target.position, common_end)]
        self.append(Rewound, seq_at(self._path, common_end), common_end, step)
        for event in restored:
            if not isinstance(event, RunStarted | RunEnded):
                fields = [getattr(event, name) for name in event.__struct_fields__[2:]]
                self.append(type(event), *fields, at=event.time)

    def sync(self) -> JournalPosition:
        """Make everything appended so far durable.

        Raises:
            OSError: The disk is full or broken.
        """
        with self._lock:
            if self._pending:
                self._retry_pending()
            if self._pending:
                raise OSError(f"{self._path}: {len(self._pending)} bytes of events wait for space on the disk")
            end = JournalPosition(self._seq, self.position)
        os.fsync(self._fd)  # without the lock: the training goes on appending while the disk is busy
        return end

    def close(self) -> None:
        """Close the file; whoever needs it durable calls :meth:`sync` first."""
        with self._lock:
            if self._pending:
                self._retry_pending()
            if self._pending or self.dropped:
                _logger.error(
                    "%s: the disk is full: %d bytes of events and %d later events were lost",
                    self._path,
                    len(self._pending),
                    self.dropped,
                )
            os.close(self._fd)
            self._fd = -1  # another file may get the number, and must not get a late event

    def _has_room_for(self, line: bytes) -> bool:
        if time.monotonic() > self._retry_time:
            self._retry_pending()
        return not self._pending or len(self._pending) + len(line) <= _MAX_PENDING_BYTES

    def _retry_pending(self) -> None:
        written = self._write(self._pending)
        del self._pending[:written]
        if not self._pending:
            _logger.warning("%s: there is space again; the events that waited were written", self._path)

    def _write(self, data: bytes | bytearray) -> int:
        written, reason = 0, "a part of an event was written"
        try:
            written = os.write(self._fd, data)
            if written == len(data):
                return written
        except OSError as error:
            reason = str(error)
        self._retry_time = time.monotonic() + _RETRY_SECONDS
        if not self._pending:
            _logger.error("%s: %s; training goes on, events wait in memory for space", self._path, reason)
        return written


def _common_end(current: list[tuple[int, int]], earlier: list[tuple[int, int]]) -> int:
    """Where the history ``current`` parts from an earlier one: up to there they are the same pieces of the journal."""
    common_end = 0
    for current_range, earlier_range in zip(current, earlier, strict=False):
        if current_range[0] != earlier_range[0]:
            break
        common_end = min(current_range[1], earlier_range[1])
        if current_range != earlier_range:
            break
    return common_end


def _truncate_torn_tail(fd: int, path: Path) -> tuple[int, int]:
    size = os.fstat(fd).st_size
    for line, end in read_lines_reversed(fd, size):
        try:
            event = events.decode(line)
        except (msgspec.MsgspecError, ValueError):
            continue
        if end < size:
            _logger.warning("%s: cut %d bytes after the last whole event (seq %d)", path, size - end, event.seq)
            os.ftruncate(fd, end)
        return event.seq, end
    if size:
        os.ftruncate(fd, 0)
    return 0, 0
