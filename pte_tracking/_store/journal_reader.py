"""Readers of the journal.

A position is a byte offset between two lines. A range is a pair of positions.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from pte_tracking._platform.files import read_at
from pte_tracking._store import event_encoding
from pte_tracking._store.events import AnyEvent, Rewound

_logger = logging.getLogger("pte_tracking")
_READ_BYTES = 1 << 16
_SEARCH_BYTES = 1 << 20

_E = TypeVar("_E", bound=AnyEvent)


def read(path: Path, position: int = 0, end: int | None = None) -> Iterator[tuple[AnyEvent, int]]:
    """Iterate over the complete events of a journal, including superseded ones.

    Damaged lines, and events of kinds of a newer version, are skipped with a warning. An incomplete last line is
    ignored, because it may still be growing. A repeated line, which some network file systems leave, is no event of its
    own: sequence numbers ascend.

    Args:
        path: Journal file.
        position: Position at which to start.
        end: Position at which to stop. Defaults to the current end of the file.

    Yields:
        Each event and the position at which it ends.
    """
    if end is None:
        end = path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        last_seq = _last_seq(file.fileno(), position)
        file.seek(position)
        rest = b""
        # The block size grows with long lines, so that a line is not joined from many blocks.
        while chunk := file.read(min(max(_READ_BYTES, len(rest)), end - position - len(rest))):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                position += len(line) + 1
                event = _decode(line, path, position)
                if event is not None and event.seq > last_seq:
                    last_seq = event.seq
                    yield event, position


def read_effective(path: Path, end: int | None = None, start: int = 0) -> Iterator[tuple[AnyEvent, int]]:
    """Iterate over the effective history of a journal.

    Args:
        path: Journal file.
        end: Position at which to stop. Rewinds after it have no effect. Defaults to the end of the file.
        start: Position before which events are omitted.

    Yields:
        Each event and the position at which it ends.

    Example:
        >>> import pathlib, tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking.sinks import JOURNAL, Metrics, read_effective
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, sinks=["json"]) as run:
        ...         run.log_metrics({"loss": 0.5}, step=1)
        ...     for event, position in read_effective(pathlib.Path(directory, JOURNAL)):
        ...         if isinstance(event, Metrics):
        ...             print(event.seq, event.values)
        2 {'loss': 0.5}
    """
    for first, last in effective_ranges(path, end):
        if last > start:
            yield from read(path, max(first, start), last)


def effective_ranges(path: Path, end: int | None = None, upto_seq: int | None = None) -> list[tuple[int, int]]:
    """Return the ranges of a journal that make up the effective history.

    Args:
        path: Journal file.
        end: Position at which the history ends. Defaults to the end of the file.
        upto_seq: Ignore rewinds after the event with this sequence number. The last range still contains later events.

    Returns:
        Start and end of each range, in ascending order.
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
    """Return the next range for a reader of the effective history.

    Args:
        path: Journal file.
        position: Position up to which the reader has read.
        end: Size to which the file has grown.

    Returns:
        The rewind that supersedes events that were read, or None, and the start and end of the range to read next.
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
    """Iterate over the events of one kind, including superseded ones.

    Lines of other kinds are not decoded, so a search for a rare kind in a journal of several gigabytes takes seconds.

    Args:
        path: Journal file.
        kind: Class of the events.
        start: Position at which to start.
        end: Position at which to stop. Defaults to the end of the file.

    Yields:
        Each event and the position at which it ends.

    Example:
        >>> import pathlib, tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking.sinks import JOURNAL, Metrics, find_events
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, sinks=["json"]) as run:
        ...         run.log_metrics({"loss": 0.5}, step=1)
        ...     for event, position in find_events(pathlib.Path(directory, JOURNAL), Metrics):
        ...         print(event.step, event.values)
        1 {'loss': 0.5}
    """
    if end is None:
        end = path.stat().st_size
    if end <= start:
        return
    # The search includes the newline before a line. Strings cannot contain it, because JSON escapes newlines. The file
    # is not mapped into memory, because the mapped pages would count as memory of this process.
    last_seq = 0
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
                if isinstance(event, kind) and event.seq > last_seq:
                    last_seq = event.seq
                    yield event, line_end
                offset = block.find(needle, newline, last)
            rest = block[last:]


def seq_at(path: Path, position: int) -> int | None:
    """Return the sequence number of the event that ends at a position, or None if no event ends there."""
    with open(path, "rb") as file:
        if position > os.fstat(file.fileno()).st_size:
            return None
        for line, line_end in read_lines_reversed(file.fileno(), position):
            if line_end != position:
                return None
            event = _decode(line, path, line_end) or event_encoding.decode_newer(line)
            return event.seq if event else None
    return None


def read_effective_reversed(path: Path, end: int | None = None) -> Iterator[AnyEvent]:
    """Iterate over the effective history in reverse order.

    Args:
        path: Journal file.
        end: Position at which the history ends. Defaults to the end of the file.
    """
    ranges = effective_ranges(path, end)
    following_seq: float = math.inf
    with open(path, "rb") as file:
        for first, last in reversed(ranges):
            for line, line_end in read_lines_reversed(file.fileno(), last):
                if line_end <= first:
                    break
                event = _decode(line, path, line_end)
                if event is not None and event.seq < following_seq:
                    following_seq = event.seq
                    yield event


def last_event(path: Path) -> tuple[AnyEvent | None, int]:
    """Return the last complete event and the position at which it ends, or None and 0 if there are no events.

    The journal is read from its end.
    """
    try:
        with open(path, "rb") as file:
            return _last_event(file.fileno(), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return None, 0


def _last_event(fd: int, end: int) -> tuple[AnyEvent | None, int]:
    for line, line_end in read_lines_reversed(fd, end):
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            return event_encoding.decode(line), line_end
    return None, 0


def _last_seq(fd: int, position: int) -> int:
    """Return the sequence number of the last event before a position, or 0."""
    event, _ = _last_event(fd, position)
    return event.seq if event else 0


def _decode(line: bytes, path: Path, position: int) -> AnyEvent | None:
    try:
        return event_encoding.decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        if newer := event_encoding.decode_newer(line):
            warn_newer(path, newer.kind)
        else:
            _logger.warning("%s: skipping the damaged line before byte %d: %s", path, position, error)
        return None


@functools.lru_cache(maxsize=1000)  # Any number of events may have such a kind.
def warn_newer(path: Path, kind: str) -> None:
    """Log once that a journal contains events of a kind that a newer version has introduced."""
    _logger.warning(
        "%s: skipping events of the kind %r, which a newer version of pte-tracking has written. To read them, upgrade "
        "pte-tracking.",
        path,
        kind,
    )


def read_lines_reversed(fd: int, size: int) -> Iterator[tuple[bytes, int]]:
    """Iterate over the complete lines of a file in reverse order.

    Args:
        fd: File descriptor.
        size: Position at which to start.

    Yields:
        Each line without its newline, and the position at which it ends.
    """
    start, tail = size, b""
    while start > 0:
        step = min(start, max(len(tail), 1 << 16))
        start -= step
        tail = read_at(fd, step, start) + tail
        # A line is complete only if the newline before it was read, or if the file begins with the line.
        while (newline := tail.rfind(b"\n")) >= 0:
            before = tail.rfind(b"\n", 0, newline)
            if before < 0 and start > 0:
                break
            yield tail[before + 1 : newline], start + newline + 1
            tail = tail[: before + 1]
            if before < 0:
                return
