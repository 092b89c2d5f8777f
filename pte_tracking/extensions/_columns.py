"""Which keys of a log's rows are shown, and how a number looks in a column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pte_tracking._store.events import Number

_NARROWEST = 10  # characters, as in Chainer
_CLOCKS = ("epoch", "iteration", "elapsed_time")


class Columns:
    """The columns of a table of rows.

    Args:
        entries: Their keys; those that come in rows if None.
        unit: The clock that leads the columns found in rows: ``"epoch"`` or ``"iteration"``.

    Attributes:
        keys: Their keys in order.
    """

    def __init__(self, entries: Sequence[str] | None, unit: str) -> None:
        self._grows = entries is None
        self._unit = unit
        self._found: dict[str, None] = {}
        self.keys: list[str] = list(entries or ())

    def find(self, row: Iterable[str]) -> bool:
        """Looks for new keys in a row; returns whether columns were added."""
        if not self._grows or self._found.keys() >= set(row):
            return False
        self._found.update(dict.fromkeys(row))
        lead = self._unit if self._unit in self._found else "iteration"
        self.keys = [
            *([lead] if lead in self._found else []),
            *(key for key in self._found if key not in _CLOCKS),
            *(["elapsed_time"] if "elapsed_time" in self._found else []),
        ]
        return True

    def header(self) -> str:
        """The keys as one line of text."""
        return "  ".join(f"{key:{width(key)}}" for key in self.keys).rstrip()

    def line(self, row: dict[str, Number]) -> str:
        """A row as one line of text below the header."""
        cells = (number(row[key], width(key)) if key in row else "" for key in self.keys)
        return "  ".join(f"{cell:{width(key)}}" for key, cell in zip(self.keys, cells, strict=True)).rstrip()


def width(key: str) -> int:
    """Characters of a column."""
    return max(_NARROWEST, len(key))


def number(value: Number, most: int = _NARROWEST) -> str:
    """A number in at most so many characters, with up to six digits of a fraction."""
    if isinstance(value, int):
        return str(value)
    texts = (f"{value:.{digits}g}" for digits in range(6, 0, -1))
    return next((text for text in texts if len(text) <= most), f"{value:.0e}")
