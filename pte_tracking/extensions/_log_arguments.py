"""Checks of the arguments of LogReport."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from pte_tracking._store import layout
from pte_tracking._store.printable import describe_value
from pte_tracking.sinks import get_sink


def check_filename(filename: str) -> str:
    """Return the path of a JSON log, or raise if it is not in the run directory or reserved."""
    if not isinstance(filename, str):
        raise TypeError(f"filename: expected a string such as 'log', got {describe_value(filename)}")
    if "{" in filename:
        raise ValueError(f"filename: expected a name without placeholders, such as 'log', got {filename!r}")
    path = PurePath(filename)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"filename: expected a file in the run directory, such as 'log', got {filename!r}")
    if path.parts[0] in layout.RESERVED_NAMES:
        raise ValueError(
            f"filename: {filename!r} is reserved for files of the run. Choose another name, such as 'log'."
        )
    return path.as_posix()


def check_sinks(sinks: Sequence[str]) -> list[str]:
    """Return the names of sinks, or raise if one of them is unknown."""
    if isinstance(sinks, str) or not all(isinstance(name, str) for name in sinks):
        raise TypeError(f"sinks: expected a list of names, such as ['json', 'mlflow'], got {sinks!r}")
    for name in sinks:
        get_sink(re.sub(r"-\d+$", "", name))  # The second sink of one kind is named mlflow-2.
    return list(sinks)


def read_keys(keys: Iterable[str] | str | None) -> list[str] | None:
    """Return the argument ``keys`` of a LogReport as a list; None for all keys.

    Raises:
        TypeError: If a key is not a string.
    """
    if keys is None or isinstance(keys, str):
        return None if keys is None else [keys]
    selected = list(keys)
    if not all(isinstance(key, str) for key in selected):
        raise TypeError(
            f"keys: expected keys of metrics, such as ['train/loss'], got {keys!r}. Pass an interval as trigger=."
        )
    return selected
