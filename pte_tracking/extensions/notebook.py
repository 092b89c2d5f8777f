"""What is different in a Jupyter notebook: output can be replaced in place."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from typing import Any

from pte_tracking.extensions.columns import Columns, number
from pte_tracking.runs.events import Number

_MOST_ROWS = 100  # a table of a million rows would be sent whole, again and again
_PAUSE = 0.5  # seconds between two tables


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


class NotebookTable:
    """The newest rows of a log as one table below the cell.

    Args:
        columns: Its columns.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._rows: deque[dict[str, Number]] = deque(maxlen=_MOST_ROWS)
        self._handle: Any = None
        self._rests_until = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it may be shown again."""
        return time.monotonic() >= self._rests_until

    def show(self, rows: list[dict[str, Number]]) -> None:
        """Adds rows."""
        from IPython.display import display

        for row in rows:
            self._columns.find(row)
            self._rows.append(row)
        table = {"text/plain": self._text(), "text/html": self._html()}
        if self._handle is None:
            self._handle = display(table, raw=True, display_id=True)
        else:
            self._handle.update(table, raw=True)
        self._rests_until = time.monotonic() + _PAUSE

    def _text(self) -> str:
        return "\n".join([self._columns.header(), *map(self._columns.line, self._rows)])

    def _html(self) -> str:
        keys = self._columns.keys
        rows = [[number(row[key]) if key in row else "" for key in keys] for row in self._rows]
        return f"<table>{_line('th', keys)}{''.join(_line('td', row) for row in rows)}</table>"


def _line(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
