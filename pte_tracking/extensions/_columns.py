"""Columns of a table of log rows, and the format of the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pte_tracking._store.events import Number

_MIN_WIDTH = 10  # characters, the same as in Chainer
#: Keys of a log row that are not metrics.
PROGRESS_KEYS = frozenset({"epoch", "iteration", "elapsed_time"})


class Columns:
    """Columns of a table of log rows.

    Args:
        entries: Keys of the columns. None to add a column for every key that occurs in a row.
        unit: Key of the first added column, ``"epoch"`` or ``"iteration"``.

    Attributes:
        keys: Keys of the columns in display order.
        omitted: Keys of added columns that do not fit the maximum width.
    """

    def __init__(self, entries: Sequence[str] | None, unit: str) -> None:
        self._is_dynamic = entries is None
        self._unit = unit
        self._seen_keys: dict[str, None] = {}
        self.keys: list[str] = list(entries or ())
        self.omitted: list[str] = []

    def add_keys(self, row: Iterable[str], max_width: int | None = None) -> bool:
        """Add columns for the new keys of a row. Return whether the columns changed.

        Args:
            row: Keys of the row.
            max_width: Maximum width of the table in characters, for which the last columns are omitted. The first two
                are always kept. None for no maximum.
        """
        if not self._is_dynamic or self._seen_keys.keys() >= set(row):
            return False
        self._seen_keys.update(dict.fromkeys(row))
        first_key = self._unit if self._unit in self._seen_keys else "iteration"
        self.keys = [
            *([first_key] if first_key in self._seen_keys else []),
            *(key for key in self._seen_keys if key not in PROGRESS_KEYS),
            *(["elapsed_time"] if "elapsed_time" in self._seen_keys else []),
        ]
        self.omitted = []
        while max_width is not None and len(self.keys) > 2 and len(self.format_header()) > max_width:
            self.omitted.insert(0, self.keys.pop())
        return True

    def has_value(self, row: Iterable[str]) -> bool:
        """Return whether a row has a value in a column of a metric, or there is no such column.

        Args:
            row: Keys of the row.
        """
        metrics = set(self.keys) - PROGRESS_KEYS
        return not metrics or not metrics.isdisjoint(row)

    def format_header(self) -> str:
        """Return the keys as one line of text."""
        return "  ".join(f"{key:{column_width(key)}}" for key in self.keys).rstrip()

    def format_row(self, row: dict[str, Number]) -> str:
        """Return a row as one line of text, aligned with the header."""
        cells = (format_number(row[key], column_width(key)) if key in row else "" for key in self.keys)
        return "  ".join(f"{cell:{column_width(key)}}" for key, cell in zip(self.keys, cells, strict=True)).rstrip()


def column_width(key: str) -> int:
    """Return the width of a column in characters."""
    return max(_MIN_WIDTH, len(key))


def format_number(value: Number, max_width: int = _MIN_WIDTH) -> str:
    """Format a number with up to six significant digits, reduced to fit a width in characters.

    Integers keep all digits.
    """
    if isinstance(value, int):
        return str(value)
    texts = (f"{value:.{digits}g}" for digits in range(6, 0, -1))
    return next((text for text in texts if len(text) <= max_width), f"{value:.0e}")
