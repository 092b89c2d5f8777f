"""Incremental reader of the effective history."""

from __future__ import annotations

import sys
from pathlib import Path

from pte_tracking._platform.files import read_at
from pte_tracking._store import journal_reader
from pte_tracking._store.events import Rewound

_MAX_TAIL_BYTES = 1 << 16


class HistoryReader:
    """Determines the ranges of a growing journal to read, and searches each part for rewinds only once.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: The current range.
        self._start = self._end = sys.maxsize
        #: Position up to which the journal was searched for rewinds. Always between two lines.
        self._scanned_end = 0

    def next_range(self, position: int, size: int) -> tuple[Rewound | None, int, int]:
        """Return the result of :func:`pte_tracking._store.journal_reader.next_range` for a growing journal.

        Args:
            position: Journal position of the sink, in bytes.
            size: Current size of the journal, in bytes.

        Returns:
            The rewind to deliver, if any, and the start and end of the range to read.
        """
        is_last = self._end >= self._scanned_end
        has_rewound = any(
            True for _ in journal_reader.find_events(self._path, Rewound, max(self._scanned_end, position), size)
        )
        self._scanned_end = max(self._scanned_end, _end_of_last_line(self._path, size))
        if not has_rewound and self._start <= position and (is_last or position < self._end):
            self._end = size if is_last else self._end
            return None, position, self._end
        rewound, self._start, self._end = journal_reader.next_range(self._path, position, size)
        return rewound, self._start, self._end


def _end_of_last_line(path: Path, size: int) -> int:
    """Return the end of the last complete line before ``size``, 0 if the line is longer than ``_MAX_TAIL_BYTES``."""
    with open(path, "rb") as file:
        first = max(size - _MAX_TAIL_BYTES, 0)
        return first + read_at(file.fileno(), size - first, first).rfind(b"\n") + 1
