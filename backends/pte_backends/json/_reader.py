"""Reader of logs of Chainer, pytorch-pfn-extras, and other programs."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pte_backends._table_rows import TableRows, find_file
from pte_tracking.sinks import AnyEvent

_logger = logging.getLogger("pte_tracking")

#: Name of the log of a LogReport.
PATTERN = "log"


def read_run(source: str, step: str | None) -> Iterator[AnyEvent]:
    """Read the rows of a log; see :meth:`JsonSink.read_run`."""
    path = find_file(source, PATTERN)
    rows = _load(path, path.read_bytes())
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a JSON array of objects, as a LogReport writes it, or one object per line")
    if not rows:
        raise LookupError(f"{path}: contains no row")
    columns = dict.fromkeys(key for row in rows for key in row)
    elapsed = rows[-1].get("elapsed_time")
    table = TableRows(path, columns, step, rows[0])
    yield from table.convert(map(_with_numbers, rows), elapsed if isinstance(elapsed, int | float) else None)


def _load(path: Path, data: bytes) -> Any:
    if data.lstrip().startswith(b"{"):
        return list(_load_lines(path, data))
    return _decode(path, data)


def _load_lines(path: Path, data: bytes) -> Iterator[Any]:
    lines = data.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _decode(path, line)
        except ValueError:
            if number < len(lines) or number == 1:
                raise
            _logger.warning("%s: truncated in line %d. The rows before were imported.", path, number)


def _decode(path: Path, data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data)  # Python's encoder writes NaN and Infinity, which JSON does not have.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON log: {error}") from error


def _with_numbers(row: dict[str, Any]) -> dict[str, Any]:
    # Logs with strict JSON contain null for a number that is not finite.
    return {key: math.nan if value is None else value for key, value in row.items() if key}
