"""Progress bar for terminals and notebooks."""

from __future__ import annotations

from typing import TextIO

from tqdm import auto

#: Whether bars are widgets, which requires a notebook and ipywidgets.
IS_WIDGET = any(base.__name__ == "tqdm_notebook" for base in auto.tqdm.__mro__)


class Bar(auto.tqdm):  # type: ignore[type-arg]
    """Progress bar of tqdm without a monitoring thread."""

    # A monitoring thread is unsafe in a process that forks the workers of its data loaders.
    monitor_interval = 0


def can_show(out: TextIO) -> bool:
    """Return whether a bar can be redrawn in place on an output stream."""
    return IS_WIDGET or (hasattr(out, "isatty") and out.isatty())
