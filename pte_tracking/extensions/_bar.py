"""A progress bar in a terminal or a notebook."""

from __future__ import annotations

from typing import TextIO

from tqdm import auto

#: Whether bars are widgets: in a notebook, where ipywidgets is installed.
IS_WIDGET = any(base.__name__ == "tqdm_notebook" for base in auto.tqdm.__mro__)


class Bar(auto.tqdm):  # type: ignore[type-arg]
    """A bar of tqdm."""

    monitor_interval = 0  # no thread beside the training, which forks the workers of its loaders


def can_show(out: TextIO) -> bool:
    """Whether a bar can be redrawn there."""
    return IS_WIDGET or (hasattr(out, "isatty") and out.isatty())
