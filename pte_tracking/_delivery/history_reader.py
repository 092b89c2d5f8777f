"""The way of a reader through a journal that grows; no part of it is looked through twice."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pte_tracking._store import journal_reader
from pte_tracking._store.events import Rewound

_MAX_TAIL_BYTES = 1 << 16


class HistoryReader:
    """Knows up to where a reader may read straight on. A long backlog would else be searched at every batch.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: The piece of the journal that is read now.
        self._start = self._end = sys.maxsize
        #: Up to where rewinds are known: always between two lines.
        self._scanned_end = 0

    def next_range(self, position: int, size: int) -> tuple[Rewound | None, int, int]:
        """What :func:`pte_tracking._store.journal_reader.next_range` gives for a journal that has grown to ``size``."""
        is_last = self._end >= self._scanned_end
        has_turned = any(
            True for _ in journal_reader.find_events(self._path, Rewound, max(self._scanned_end, position), size)
        )
        self._scanned_end = max(self._scanned_end, _end_of_last_line(self._path, size))
        if not has_turned and self._start <= position and (is_last or position < self._end):
            self._end = size if is_last else self._end
            return None, position, self._end
        rewound, self._start, self._end = journal_reader.next_range(self._path, position, size)
        return rewound, self._start, self._end


def _end_of_last_line(path: Path, size: int) -> int:
    """Where the last line that ends before ``size`` does; 0 if that is not in sight."""
    with open(path, "rb") as file:
        first = max(size - _MAX_TAIL_BYTES, 0)
        return first + os.pread(file.fileno(), size - first, first).rfind(b"\n") + 1
