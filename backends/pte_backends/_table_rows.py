"""Metrics in the rows of a table that any program wrote, such as a CSV file or the log of Chainer's LogReport."""

from __future__ import annotations

import collections
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pte_tracking.sinks import Metrics, Number

_logger = logging.getLogger("pte_tracking")

#: Names of the column with the step, in lower case. The first one that the table has is used.
_STEP_COLUMNS = ("iteration", "step", "global_step", "trainer/global_step", "epoch")
#: Names of the column with the time in seconds since the Unix epoch, in lower case.
_TIME_COLUMNS = ("time", "timestamp", "wall_time", "wall time", "_timestamp")
_MIN_TIME = 1e9  # in 2001; smaller numbers are durations
_MAX_NAMED = 5


def find_file(source: str, pattern: str) -> Path:
    """Return the file of a source.

    Args:
        source: File, or directory that contains one file with a matching name.
        pattern: Glob pattern of the name.

    Raises:
        LookupError: If there is no such file.
        ValueError: If the directory contains several.
    """
    path = Path(source)
    if not path.is_dir():
        if not path.is_file():
            raise LookupError(f"{source}: no such file or directory")
        return path
    files = sorted(file for file in path.glob(pattern) if file.is_file())
    if not files:
        raise LookupError(f"{source}: contains no file {pattern}")
    if len(files) > 1:
        names = ", ".join(str(file) for file in files[:_MAX_NAMED])
        raise ValueError(f"{source}: contains several files {pattern}. Pass one of them: {names}")
    return files[0]


class TableRows:
    """Converter from the rows of a table to metrics.

    Args:
        path: File of the table, for messages. Without a column of times, its last row has the time at which the file
            was modified last, and earlier rows precede it by the difference of their elapsed times.
        columns: Names of the columns.
        step: Name of the column with the step. Defaults to None: the first known name.
        first: First row, by which a column of times is distinguished from one of durations.

    Raises:
        ValueError: If there is no column with the step.
    """

    def __init__(self, path: Path, columns: Iterable[str], step: str | None, first: Mapping[str, Any]) -> None:
        self._path = path
        by_lower_case = {name.lower(): name for name in reversed(list(columns))}
        names = list(reversed(by_lower_case.values()))
        if step is not None and step not in names:
            raise ValueError(f"{path}: has no column {step!r}. Columns: {_join(names)}")
        found = step or next((by_lower_case[name] for name in _STEP_COLUMNS if name in by_lower_case), None)
        if found is None:
            raise ValueError(
                f"{path}: has no column with the step. Pass its name: --option step=COLUMN. Columns: {_join(names)}"
            )
        self._step = found
        self._epoch = by_lower_case.get("epoch")
        self._elapsed_time = by_lower_case.get("elapsed_time")
        candidates = (by_lower_case[name] for name in _TIME_COLUMNS if name in by_lower_case)
        self._time = next((name for name in candidates if _is_time(first.get(name))), None)
        clocks = (self._step, self._epoch, self._elapsed_time, self._time)
        self._clocks = {name for name in clocks if name is not None}
        self._left_out: collections.Counter[str] = collections.Counter()

    def convert(self, rows: Iterable[Mapping[str, Any]], last_elapsed: float | None = None) -> Iterator[Metrics]:
        """Convert the rows.

        Args:
            rows: Cells by column: numbers, or texts, which are left out. An empty text or a missing cell has no value.
            last_elapsed: Elapsed time of the last row, in seconds. None if it is unknown.

        Yields:
            One event per row with a value.

        Raises:
            ValueError: If a step is not an integer.
        """
        modified = self._path.stat().st_mtime
        clocks, step_column = self._clocks, self._step
        for number, row in enumerate(rows, 1):
            values: dict[str, Any] = {}
            for name, cell in row.items():
                if type(cell) is float or type(cell) is int:
                    if name not in clocks:
                        values[name] = cell
                elif cell != "" and name not in clocks:
                    self._left_out[name] += 1
            if not values:
                continue
            step = row.get(step_column)
            epoch, elapsed = self._find_clock(row, self._epoch), self._find_clock(row, self._elapsed_time)
            time = self._find_clock(row, self._time)
            if time is None:
                time = modified if elapsed is None or last_elapsed is None else modified - last_elapsed + elapsed
            yield Metrics(0, time, self._to_step(step, number), values, epoch, elapsed)
        if self._left_out:
            cells = ", ".join(f"{name!r} ({count})" for name, count in self._left_out.most_common(_MAX_NAMED))
            more = ", ..." if len(self._left_out) > _MAX_NAMED else ""
            _logger.warning(
                "%s: cells without a number were not imported, in the columns %s%s", self._path, cells, more
            )

    def _find_clock(self, row: Mapping[str, Any], column: str | None) -> Number | None:
        cell = row.get(column) if column is not None else None
        return cell if isinstance(cell, int | float) and math.isfinite(cell) else None

    def _to_step(self, cell: Any, number: int) -> int:
        if type(cell) is int:
            return cell
        if isinstance(cell, float) and cell.is_integer():
            return int(cell)
        raise ValueError(
            f"{self._path}: row {number}: expected an integer in column {self._step!r}, got {cell!r}. "
            "Another column with the step is selected by --option step=COLUMN."
        )


def _is_time(cell: Any) -> bool:
    return isinstance(cell, int | float) and cell >= _MIN_TIME


def _join(names: list[str]) -> str:
    more = f", and {len(names) - _MAX_NAMED * 4} more" if len(names) > _MAX_NAMED * 4 else ""
    return ", ".join(names[: _MAX_NAMED * 4]) + more
