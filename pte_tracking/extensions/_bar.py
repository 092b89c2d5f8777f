"""Progress bar for terminals and notebooks."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import auto

from pte_tracking.extensions._lines import terminal_size

_COLUMNS, _LINES = 80, 24  # of a terminal of unknown size
#: Whether bars are widgets, which requires a notebook and ipywidgets.
IS_WIDGET = any(base.__name__ == "tqdm_notebook" for base in auto.tqdm.__mro__)


class Bar(auto.tqdm):  # type: ignore[type-arg]
    """Progress bar of tqdm without a monitoring thread."""

    # A monitoring thread is unsafe in a process that forks the workers of its data loaders.
    monitor_interval = 0

    def __init__(self, *, file: TextIO | None = None, **options: Any) -> None:
        size = terminal_size(sys.stderr if file is None else file)
        if size is not None and not all(size):
            # A terminal of unknown size, such as that of the command script. tqdm would display an empty line.
            columns, lines = size
            options |= {"dynamic_ncols": False, "ncols": columns or _COLUMNS, "nrows": lines or _LINES}
        super().__init__(file=file, **options)


def can_show(out: TextIO) -> bool:
    """Return whether a bar can be redrawn in place on an output stream."""
    return IS_WIDGET or (hasattr(out, "isatty") and out.isatty())
