"""End of a journal that is continued, and lines in it that cannot be read.

What cannot be read is never destroyed. Only an unterminated last line is cut, which a killed process leaves. Lines of a
newer version stay.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from pte_tracking._platform.files import read_at
from pte_tracking._store.event_encoding import decode_header
from pte_tracking._store.journal_reader import read_lines_reversed
from pte_tracking._store.manifest import RunNotFoundError

_logger = logging.getLogger("pte_tracking")
_CHUNK_BYTES = 1 << 20
_LINE_START = b'{"kind":"'
_LINE_BOUNDARY = b"}\n" + _LINE_START
#: Left by a loss of power. No encoding of text contains as many zeros.
_ZEROS = bytes(4)


def find_end(fd: int, path: Path, target: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the sequence number and the position after which a journal is continued. Cut an unterminated last line.

    Args:
        fd: The opened journal.
        path: Path of the journal.
        target: Sequence number and position to which the journal is going to be rewound. Damage after it is copied to
            another file. None if it is continued at its end.

    Raises:
        RunNotFoundError: If the last line cannot be read, and the journal is continued at its end.
        OSError: If a file cannot be read or written.
    """
    size = os.fstat(fd).st_size
    seq, end = _last_line(fd, path, size, target)
    if target is not None and target[1] < size and find_damage(path, target[1], size) is not None:
        copy = _copy_tail(fd, path, target[1], size)
        _logger.warning("%s: damaged after byte %d. The rest was copied to %s.", path, target[1], copy)
    elif end < size and not _is_torn_line(read_at(fd, _CHUNK_BYTES, end)):
        copy = _copy_tail(fd, path, end, size)
        _logger.warning("%s: the bytes after byte %d are not an event. They were copied to %s.", path, end, copy)
    if end < size:
        _logger.warning("%s: truncated %d bytes after the last complete event (seq %d)", path, size - end, seq)
        os.ftruncate(fd, end)
    return seq, end


def check_journal(path: Path, target: tuple[int, int] | None) -> None:
    """Check that a journal can be continued, without changing it. A journal that does not exist can be continued.

    Args:
        path: Path of the journal.
        target: Sequence number and position to which the journal is going to be rewound. None for its end.

    Raises:
        RunNotFoundError: If a line before the target, or the last line, cannot be read.
        OSError: If the journal cannot be read.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed below
    except FileNotFoundError:
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        if target is None or target[1] > size:
            _last_line(file.fileno(), path, size, None)
        elif (position := find_damage(path, 0, target[1])) is not None:
            raise _unreadable(path, position, "is located before the snapshot")


def find_damage(path: Path, start: int, end: int) -> int | None:
    """Return the position of the first unreadable line between two positions, or None. A torn last line counts.

    Intact lines are not decoded, so a journal of several gigabytes takes seconds.
    """
    rest = b""
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while chunk := file.read(min(_CHUNK_BYTES, end - start - len(rest))):
            block = rest + chunk
            length = block.rfind(b"\n") + 1
            rest = block[length:]
            if _is_intact(block, length):
                start += length
                continue
            for line in block[:length].split(b"\n")[:-1]:
                if line.strip() and _seq_of(line) is None:
                    return start
                start += len(line) + 1
    return start if rest else None


def _is_intact(block: bytes, length: int) -> bool:
    """Whether the lines in the first ``length`` bytes all look like events. This is fast, because no line is split."""
    return (
        block.startswith(_LINE_START)
        and block.endswith(b"}\n", 0, length)
        and block.count(_LINE_BOUNDARY, 0, length) == block.count(b"\n", 0, length) - 1
    )


def _last_line(fd: int, path: Path, size: int, target: tuple[int, int] | None) -> tuple[int, int]:
    """Return the sequence number of the last readable line, and the position after the last line with a newline."""
    last_end, has_content = None, False
    for line, end in read_lines_reversed(fd, size):
        last_end = end if last_end is None else last_end
        if target is not None and end <= target[1]:
            return target[0], last_end
        seq = _seq_of(line)
        if seq is not None:
            return seq, last_end
        if target is None and line.strip() and _ZEROS not in line:
            raise _unreadable(path, end - len(line) - 1, "is the last one")
        has_content |= bool(line.strip())
    has_content |= size > 0 and last_end is None
    if has_content and target is None and not _is_torn_line(read_at(fd, _CHUNK_BYTES, 0)):
        raise _unreadable(path, 0, "is the only one")
    return 0, last_end or 0


def _unreadable(path: Path, position: int, where: str) -> RunNotFoundError:
    return RunNotFoundError(
        f"{path}: the line at byte {position} cannot be read. It {where}, so the run is not continued, and nothing was "
        "changed. Restore the journal from a copy, or choose another run directory."
    )


def _seq_of(line: bytes) -> int | None:
    try:
        # A loss of power leaves zeros in place of lost events, without a newline. JSON contains no zeros.
        return decode_header(line.rpartition(b"\0")[2]).seq
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _is_torn_line(data: bytes) -> bool:
    """Whether bytes are the beginning of an event. Zeros follow if the machine lost power."""
    data = data.rstrip(b"\0")
    return data.startswith(_LINE_START) or _LINE_START.startswith(data)


def _copy_tail(fd: int, path: Path, start: int, end: int) -> Path:
    number = 1
    while (copy := path.with_name(f"{path.stem}.damaged-{number}")).exists():
        number += 1
    with open(copy, "xb") as file:
        while start < end and (chunk := read_at(fd, min(_CHUNK_BYTES, end - start), start)):
            file.write(chunk)
            start += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return copy
