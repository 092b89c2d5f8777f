"""Reading of a run's events.

A position is a number of bytes from the file's start, always between two lines.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent, Rewound

_logger = logging.getLogger("pte_tracking")
_READ_BYTES = 1 << 16
_SEARCH_BYTES = 1 << 20

_E = TypeVar("_E", bound=AnyEvent)


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
        while chunk := file.read(min(max(_READ_BYTES, len(rest)), end - position - len(rest))):
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
    ranges: list[tuple[int, int]] = []
    for rewound, line_end in reversed(list(find_events(path, Rewound, end=end))):
        if line_end <= end and (upto_seq is None or rewound.seq <= upto_seq):
            ranges.append((line_end, end))
            end = rewound.to_position
    ranges.append((0, end))
    return ranges[::-1]


def next_range(path: Path, position: int, end: int) -> tuple[Rewound | None, int, int]:
    """How a reader who has read the effective history up to ``position`` goes on when the file has grown to ``end``.

    Returns:
        The rewind that takes back what was read (None if all of it still holds), and the piece to read next.
    """
    rewinds = {line_end: event for event, line_end in find_events(path, Rewound, position, end)}
    if not rewinds:
        return None, position, end
    ranges = effective_ranges(path, end)
    index = max(index for index, (first, _) in enumerate(ranges) if first <= position)
    last = ranges[index][1]
    if position < last or index == len(ranges) - 1:
        return None, position, last
    following = ranges[index + 1]
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
        while chunk := file.read(min(max(_SEARCH_BYTES, len(rest)), end - start)):
            start += len(chunk)
            block = rest + chunk
            last = block.rfind(b"\n")
            offset = block.find(needle, 0, last)
            while offset >= 0:
                newline = block.find(b"\n", offset + 1)
                line_end = start - len(block) + newline + 1
                event = _decode(block[offset + 1 : newline], path, line_end)
                if isinstance(event, kind):
                    yield event, line_end
                offset = block.find(needle, newline, last)
            rest = block[last:]


def seq_at(path: Path, position: int) -> int | None:
    """The ``seq`` of the event that ends at a position; None if none does."""
    with open(path, "rb") as file:
        if position > os.fstat(file.fileno()).st_size:
            return None
        for line, line_end in read_lines_reversed(file.fileno(), position):
            event = _decode(line, path, line_end) if line_end == position else None
            return event.seq if event else None
    return None


def read_effective_reversed(path: Path, end: int | None = None) -> Iterator[AnyEvent]:
    """The effective history up to ``end``, from its end to its beginning."""
    ranges = effective_ranges(path, end)
    with open(path, "rb") as file:
        for first, last in reversed(ranges):
            for line, line_end in read_lines_reversed(file.fileno(), last):
                if line_end <= first:
                    break
                event = _decode(line, path, line_end)
                if event is not None:
                    yield event


def last_event(path: Path) -> tuple[AnyEvent | None, int]:
    """The last whole event, found from the end, and the position behind it; None and 0 if there is none."""
    try:
        with open(path, "rb") as file:
            for line, line_end in read_lines_reversed(file.fileno(), os.fstat(file.fileno()).st_size):
                with contextlib.suppress(msgspec.MsgspecError, ValueError):
                    return events.decode(line), line_end
    except FileNotFoundError:
        pass
    return None, 0


def _decode(line: bytes, path: Path, position: int) -> AnyEvent | None:
    try:
        return events.decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        _logger.warning("%s: the line before byte %d is no event and is skipped: %s", path, position, error)
        return None


def read_lines_reversed(fd: int, size: int) -> Iterator[tuple[bytes, int]]:
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
