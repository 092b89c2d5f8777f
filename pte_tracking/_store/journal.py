"""Append-only event log of a run.

A position is a byte offset between two lines. The journal is never rewritten. Events of the class
:class:`~pte_tracking._store.events.Rewound` supersede earlier events. The *effective history* consists of the events
that are not superseded.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pte_tracking._platform.files import sync_directory
from pte_tracking._store.event_encoding import encode
from pte_tracking._store.events import AnyEvent, Rewound, RunEnded, RunStarted
from pte_tracking._store.journal_end import find_end
from pte_tracking._store.journal_reader import effective_ranges, read_effective, seq_at
from pte_tracking._store.owned_files import open_owned
from pte_tracking._store.signal_errors import raise_from_signal_handler

_logger = logging.getLogger("pte_tracking")
_MAX_PENDING_BYTES = 64 << 20
_RETRY_SECONDS = 1.0  # between attempts to write to a full disk

_E = TypeVar("_E", bound=AnyEvent)


class JournalPosition(NamedTuple):
    """Position between two events.

    Attributes:
        seq: Sequence number of the event before the position. 0 at the start of the journal.
        position: Byte offset at which that event ends.
    """

    seq: int
    position: int


class Journal:
    """Writer of a journal.

    Each event is appended by one ``write``, so the operating system has it before the call returns. If the disk is
    full, up to 64 MiB of events are kept in memory and written once space is available. Further events are dropped and
    counted. The file stays readable.

    Args:
        path: Journal file. It is created if it does not exist. An unterminated last line is cut.
        target: Position to which the journal is going to be rewound. Damage after it is copied to another file. None if
            the journal is continued at its end.

    Raises:
        RunNotFoundError: If the last line cannot be read, and the journal is continued at its end.

    Attributes:
        position: Byte offset at which the last event ends.
        lock: Lock that is held while an event is appended.
        dropped: Number of events that were dropped because the disk was full.
    """

    def __init__(self, path: Path, target: JournalPosition | None = None) -> None:
        self._fd = open_owned(path, path.parent, os.O_APPEND)
        self._path = path
        try:
            self._seq, self.position = find_end(self._fd, path, target)
        except BaseException:
            os.close(self._fd)
            raise
        #: Bytes of the last events that may not be in the file. :meth:`_flush` compares them with the size of the file,
        #: because an exception of a signal handler may leave a line here that was written.
        self._pending: bytes | bytearray = b""
        self._is_full = False
        self._retry_time = 0.0
        # Reentrant, because a signal handler or a logging handler may read the position while an event is appended.
        self.lock = threading.RLock()
        self.dropped = 0

    @property
    def end(self) -> JournalPosition:
        """Position after the last event."""
        with self.lock:
            return JournalPosition(self._seq, self.position)

    def append(self, kind: type[_E], *fields: Any, at: float | None = None) -> _E | None:
        """Append an event.

        Args:
            kind: Class of the event.
            fields: Fields of the event after ``seq`` and ``time``.
            at: Time of the event in seconds since the Unix epoch. Defaults to the current time.

        Returns:
            The event, or None if the event was dropped because the disk is full.
        """
        with self.lock:
            return self.append_locked(kind, fields, at)

    def append_locked(self, kind: type[_E], fields: tuple[Any, ...], at: float | None) -> _E | None:
        """Append an event as :meth:`append` does, for a caller that holds the lock."""
        event = kind(self._seq + 1, time.time() if at is None else at, *fields)
        line = encode(event)
        length = len(line)
        if self._pending and not self._has_room_for(length):
            self.dropped += 1
            return None
        # No signal handler runs between these statements, because they call nothing.
        self._seq += 1
        self.position += length
        if self._pending:
            self._pending += line
            return event
        self._pending = line
        try:
            if os.write(self._fd, line) == length:
                self._pending = b""
                return event
        except OSError as error:
            self._record_failure(error)
        else:
            self._record_failure(None)
        return event

    def rewind(self, target: JournalPosition, step: int) -> bool:
        """Supersede the events after an earlier position.

        If the target itself is superseded, the journal is rewound to the end of the common history. The events from
        there to the target are then appended again with their original times.

        Args:
            target: Position to return to. If no event ends there, the journal is not rewound and a warning is logged.
            step: Number of completed iterations at the target.

        Returns:
            Whether an event was appended.
        """
        if target == self.end:
            return False
        if seq_at(self._path, target.position) != target.seq:
            _logger.warning(
                "%s: not rewound, because event %d of the snapshot is not in the journal", self._path, target.seq
            )
            return False
        common_end = _common_end(effective_ranges(self._path), effective_ranges(self._path, target.position))
        restored = [event for event, _ in read_effective(self._path, target.position, common_end)]
        self.append(Rewound, seq_at(self._path, common_end), common_end, step)
        for event in restored:
            if not isinstance(event, RunStarted | RunEnded):
                self.repeat(event)
        return True

    def repeat(self, event: AnyEvent) -> None:
        """Append an event again with its original time."""
        fields = [getattr(event, name) for name in event.__struct_fields__[2:]]
        self.append(type(event), *fields, at=event.time)

    def sync(self) -> JournalPosition:
        """Flush all appended events to disk.

        Returns:
            Position after the last durable event.

        Raises:
            OSError: If the disk is full or fails.
        """
        with self.lock:
            if self._pending:
                self._flush()
            if self._pending:
                raise OSError(f"{self._path}: {len(self._pending)} bytes of events are waiting for disk space")
            end = JournalPosition(self._seq, self.position)
        os.fsync(self._fd)  # without the lock, so that training can append while the disk is busy
        return end

    def make_durable(self) -> None:
        """Flush a new journal and its directory entry to disk. A failure is logged.

        A resume needs the first event, which identifies the run, also if later events are lost.
        """
        try:
            self.sync()
            sync_directory(self._path.parent)
        except OSError as error:
            raise_from_signal_handler(error)
            _logger.error("%s: not flushed to disk, so a loss of power may lose it: %s", self._path, error)

    def close(self) -> None:
        """Write pending events and close the file without flushing it to disk. Call :meth:`sync` first if needed.

        Has no effect on a closed journal.
        """
        with self.lock:
            if self._fd < 0:
                return
            if self._pending:
                self._flush()
            if self._pending or self.dropped:
                _logger.error(
                    "%s: the disk is full. Lost %d bytes of events and %d later events.",
                    self._path,
                    len(self._pending),
                    self.dropped,
                )
            os.close(self._fd)
            self._fd = -1  # the number can be reused by another file, which must not receive late events

    def _has_room_for(self, length: int) -> bool:
        if time.monotonic() > self._retry_time:
            self._flush()
        return not self._pending or len(self._pending) + length <= _MAX_PENDING_BYTES

    def _flush(self) -> None:
        """Write the pending bytes that are not in the file."""
        try:
            unwritten = self.position - os.fstat(self._fd).st_size
            self._pending = pending = bytearray(self._pending[-unwritten:] if unwritten > 0 else b"")
            if pending:
                del pending[: os.write(self._fd, pending)]
        except OSError as error:
            self._record_failure(error)
            return
        if pending:
            self._record_failure(None)
        elif self._is_full:
            self._is_full = False
            _logger.warning("%s: disk space is available again. Pending events were written.", self._path)

    def _record_failure(self, error: OSError | None) -> None:
        """Report that the disk is full, once. Raise an exception that a signal handler raised."""
        if error is not None:
            raise_from_signal_handler(error)
        self._retry_time = time.monotonic() + _RETRY_SECONDS
        self._pending = bytearray(self._pending)  # grows in place
        if self._is_full:
            return
        self._is_full = True
        _logger.error(
            "%s: %s. Training continues, and events are kept in memory until space is available.",
            self._path,
            error or "an event was written partly",
        )


def _common_end(current: list[tuple[int, int]], earlier: list[tuple[int, int]]) -> int:
    """Return the position up to which two effective histories consist of the same ranges."""
    common_end = 0
    for current_range, earlier_range in zip(current, earlier, strict=False):
        if current_range[0] != earlier_range[0]:
            break
        common_end = min(current_range[1], earlier_range[1])
        if current_range != earlier_range:
            break
    return common_end
