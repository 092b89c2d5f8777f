"""Output in Jupyter notebooks, which is updated in place."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from typing import Any

from pte_tracking._store.events import Number
from pte_tracking.extensions._columns import Columns, format_number

_MAX_ROWS = 100  # Each update sends the whole table to the browser.
_UPDATE_SECONDS = 0.5  # minimum time between two updates of a table


def in_notebook() -> bool:
    """Return whether the process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


class NotebookOutput:
    """Output below a notebook cell that is updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, representations: dict[str, Any]) -> None:
        """Display or update the output.

        Args:
            representations: Representations of the output by MIME type.
        """
        from IPython.display import display

        if self._handle is None:
            self._handle = display(representations, raw=True, display_id=True)
        else:
            self._handle.update(representations, raw=True)


class NotebookTable:
    """Table of the newest log rows below a notebook cell.

    Args:
        columns: Columns of the table.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._rows: deque[dict[str, Number]] = deque(maxlen=_MAX_ROWS)
        self._output = NotebookOutput()
        self._next_update_time = 0.0
        self._is_outdated = False

    def show(self, rows: list[dict[str, Number]]) -> None:
        """Append rows. The next call of :meth:`refresh` shows them."""
        for row in rows:
            self._columns.add_keys(row)
            if self._columns.has_value(row):
                self._rows.append(row)
        self._is_outdated = True

    def refresh(self, at_once: bool = False) -> None:
        """Show the rows appended since the last update.

        Args:
            at_once: Whether to update the table even if the last update was less than half a second ago.
        """
        if self._is_outdated and (at_once or time.monotonic() >= self._next_update_time):
            self._output.show({"text/plain": self._text(), "text/html": self._html()})
            self._next_update_time = time.monotonic() + _UPDATE_SECONDS
            self._is_outdated = False

    def _text(self) -> str:
        return "\n".join([self._columns.format_header(), *map(self._columns.format_row, self._rows)])

    def _html(self) -> str:
        keys = self._columns.keys
        rows = [[format_number(row[key]) if key in row else "" for key in keys] for row in self._rows]
        return f"<table>{_format_table_row('th', keys)}{''.join(_format_table_row('td', row) for row in rows)}</table>"


def _format_table_row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
