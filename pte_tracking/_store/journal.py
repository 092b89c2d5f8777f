"""The append-only file of a run's events: append, read from a position, mend a torn tail.

A position is a number of bytes from the file's start, always between two lines. The journal is never rewritten: a
:class:`~pte_tracking._store.events.Rewound` event takes earlier ones back, and what counts is the *effective history*.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent, Rewound, RunEnded, RunStarted

_logger = logging.getLogger("pte_tracking")
_MAX_PENDING_BYTES = 64 << 20
_RETRY_SECONDS = 1.0  # seconds between attempts to write to a full disk
_CHUNK = 1 << 16
_PIECE = 1 << 20

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
        self._not_before = 0.0
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

    def rewind(self, to: JournalPosition, step: int) -> None:
        """Take back what came after an earlier point.

        A point that was itself taken back is reached by going back to where the two histories part, and writing the
        events from there to the point again, at their own times.

        Args:
            to: The point.
            step: Iterations done there.
        """
        if to == self.end:
            return
        if seq_at(self._path, to.position) != to.seq:
            _logger.warning("%s: it does not reach the snapshot's event %d; nothing is taken back", self._path, to.seq)
            return
        parting = _common_end(effective_ranges(self._path), effective_ranges(self._path, to.position))
        again = [event for event, _ in read_effective(self._path, to.position, parting)]
        self.append(Rewound, seq_at(self._path, parting), parting, step)
        for event in again:
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
            mark = JournalPosition(self._seq, self.position)
        os.fsync(self._fd)  # without the lock: the training goes on appending while the disk is busy
        return mark

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
        if time.monotonic() > self._not_before:
            self._retry_pending()
        return not self._pending or len(self._pending) + len(line) <= _MAX_PENDING_BYTES

    def _retry_pending(self) -> None:
        written = self._write(self._pending)
        del self._pending[:written]
        if not self._pending:
            _logger.warning("%s: there is space again; the events that waited were written", self._path)

    def _write(self, data: bytes | bytearray) -> int:
        written, problem = 0, "a part of an event was written"
        try:
            written = os.write(self._fd, data)
            if written == len(data):
                return written
        except OSError as error:
            problem = str(error)
        self._not_before = time.monotonic() + _RETRY_SECONDS
        if not self._pending:
            _logger.error("%s: %s; training goes on, events wait in memory for space", self._path, problem)
        return written


def read(path: Path, position: int = 0, end: int | None = None) -> Iterator[tuple[AnyEvent, int]]:
    """The whole events from a position on, each with the position behind it.

    A line that cannot be read is skipped, and said. A torn last line is left alone: it may still be growing.

    Args:
        path: The journal.
        position: Where to begin.
        end: Where to end; by default where the file ends now.
    """
    if end is None:
        end = path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        file.seek(position)
        rest = b""
        # Long lines take long pieces, so that none is put together from many.
        while chunk := file.read(min(max(_CHUNK, len(rest)), end - position - len(rest))):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                position += len(line) + 1
                event = _decode(line, path, position)
                if event is not None:
                    yield event, position


def read_effective(path: Path, end: int | None = None, start: int = 0) -> Iterator[tuple[AnyEvent, int]]:
    """The effective history up to ``end``: what :func:`read` gives, less the events that were taken back before it.

    Args:
        path: The journal.
        end: The position up to which events count, rewinds among them; by default the end of the file.
        start: Leave out what stands before this position.
    """
    for first, last in effective_ranges(path, end):
        if last > start:
            yield from read(path, max(first, start), last)


def effective_ranges(path: Path, end: int | None = None, upto_seq: int | None = None) -> list[tuple[int, int]]:
    """The pieces of the journal, from position to position, that make up the effective history up to ``end``.

    With ``upto_seq``: as it was when that event was the last one; later events are in the last piece too then.
    """
    if end is None:
        end = path.stat().st_size
    pieces: list[tuple[int, int]] = []
    for rewound, behind in reversed(list(find_events(path, Rewound, end=end))):
        if behind <= end and (upto_seq is None or rewound.seq <= upto_seq):
            pieces.append((behind, end))
            end = rewound.to_position
    pieces.append((0, end))
    return pieces[::-1]


def _common_end(now: list[tuple[int, int]], then: list[tuple[int, int]]) -> int:
    """Where the history ``now`` parts from an earlier one: up to there they are the same pieces of the journal."""
    parting = 0
    for here, there in zip(now, then, strict=False):
        if here[0] != there[0]:
            break
        parting = min(here[1], there[1])
        if here != there:
            break
    return parting


def next_range(path: Path, position: int, end: int) -> tuple[Rewound | None, int, int]:
    """How a reader who has read the effective history up to ``position`` goes on when the file has grown to ``end``.

    Returns:
        The rewind that takes back what was read (None if all of it still holds), and the piece to read next.
    """
    rewinds = {behind: event for event, behind in find_events(path, Rewound, position, end)}
    if not rewinds:
        return None, position, end
    pieces = effective_ranges(path, end)
    index = max(index for index, (first, _) in enumerate(pieces) if first <= position)
    last = pieces[index][1]
    if position < last or index == len(pieces) - 1:
        return None, position, last
    following = pieces[index + 1]
    return rewinds[following[0]] if position > last else None, *following


def find_events(path: Path, kind: type[_E], start: int = 0, end: int | None = None) -> Iterator[tuple[_E, int]]:
    """The events of one kind between two positions, each with the position behind it.

    Fast for rare kinds, since lines of other kinds are not decoded: a journal of gigabytes takes seconds. Events that
    were taken back are among them.
    """
    if end is None:
        end = path.stat().st_size
    if end <= start:
        return
    # Each line is found by the newline before it: one inside of a string is written as an escape. The file is not
    # mapped: gigabytes of it would count as memory of this process.
    needle = f'\n{{"kind":"{kind.__struct_config__.tag}"'.encode()
    rest = b"\n"
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while chunk := file.read(min(max(_PIECE, len(rest)), end - start)):
            start += len(chunk)
            piece = rest + chunk
            last = piece.rfind(b"\n")
            at = piece.find(needle, 0, last)
            while at >= 0:
                newline = piece.find(b"\n", at + 1)
                behind = start - len(piece) + newline + 1
                event = _decode(piece[at + 1 : newline], path, behind)
                if isinstance(event, kind):
                    yield event, behind
                at = piece.find(needle, newline, last)
            rest = piece[last:]


def seq_at(path: Path, position: int) -> int | None:
    """The ``seq`` of the event that ends at a position; None if none does."""
    with open(path, "rb") as file:
        if position > os.fstat(file.fileno()).st_size:
            return None
        for line, behind in _lines_backwards(file.fileno(), position):
            event = _decode(line, path, behind) if behind == position else None
            return event.seq if event else None
    return None


def read_effective_reversed(path: Path, end: int | None = None) -> Iterator[AnyEvent]:
    """The effective history up to ``end``, from its end to its beginning."""
    pieces = effective_ranges(path, end)
    with open(path, "rb") as file:
        for first, last in reversed(pieces):
            for line, behind in _lines_backwards(file.fileno(), last):
                if behind <= first:
                    break
                event = _decode(line, path, behind)
                if event is not None:
                    yield event


def last_event(path: Path) -> tuple[AnyEvent | None, int]:
    """The last whole event, found from the end, and the position behind it; None and 0 if there is none."""
    try:
        with open(path, "rb") as file:
            for line, behind in _lines_backwards(file.fileno(), os.fstat(file.fileno()).st_size):
                with contextlib.suppress(msgspec.MsgspecError, ValueError):
                    return events.decode(line), behind
    except FileNotFoundError:
        pass
    return None, 0


def _decode(line: bytes, path: Path, position: int) -> AnyEvent | None:
    try:
        return events.decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        _logger.warning("%s: the line before byte %d is no event and is skipped: %s", path, position, error)
        return None


def _truncate_torn_tail(fd: int, path: Path) -> tuple[int, int]:
    size = os.fstat(fd).st_size
    for line, behind in _lines_backwards(fd, size):
        try:
            event = events.decode(line)
        except (msgspec.MsgspecError, ValueError):
            continue
        if behind < size:
            _logger.warning("%s: cut %d bytes after the last whole event (seq %d)", path, size - behind, event.seq)
            os.ftruncate(fd, behind)
        return event.seq, behind
    if size:
        os.ftruncate(fd, 0)
    return 0, 0


def _lines_backwards(fd: int, size: int) -> Iterator[tuple[bytes, int]]:
    """The lines that end in a newline, from the last to the first, each with the position behind it."""
    start, tail = size, b""
    while start > 0:
        step = min(start, max(len(tail), 1 << 16))
        start -= step
        tail = os.pread(fd, step, start) + tail
        # A line is whole only if the newline before it is in sight, or the file begins with it.
        while (newline := tail.rfind(b"\n")) >= 0:
            before = tail.rfind(b"\n", 0, newline)
            if before < 0 and start > 0:
                break
            yield tail[before + 1 : newline], start + newline + 1
            tail = tail[: before + 1]
            if before < 0:
                return
