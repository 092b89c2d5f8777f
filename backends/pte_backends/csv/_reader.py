"""Reader of tables that any program wrote."""

from __future__ import annotations

import csv
import itertools
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pte_backends._table_rows import TableRows, find_file
from pte_tracking.sinks import AnyEvent

_logger = logging.getLogger("pte_tracking")

PATTERN = "*.csv"
_DELIMITERS = (",", ";", "\t")
_TAIL_BYTES = 1 << 16


def read_run(source: str, step: str | None) -> Iterator[AnyEvent]:
    """Read the rows of a table; see :meth:`CsvSink.read_run`."""
    path = find_file(source, PATTERN)
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            yield from _read_rows(path, file, step)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected a CSV file in UTF-8: {error}") from error
        except csv.Error as error:
            raise ValueError(f"{path}: not a CSV file: {error}") from error


def _read_rows(path: Path, file: IO[str], step: str | None) -> Iterator[AnyEvent]:
    header = file.readline()
    delimiter = max(_DELIMITERS, key=header.count)
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter)
    columns = [name.strip() for name in next(reader, [])]
    repeated = sorted({name for name in columns if columns.count(name) > 1 and name})
    if repeated:
        raise ValueError(f"{path}: expected different names of columns, got {repeated[0]!r} twice")
    if not any(columns):
        raise LookupError(f"{path}: contains no table")

    def parse_rows() -> Iterator[dict[str, Any]]:
        for cells in reader:
            if len(cells) > len(columns):
                raise ValueError(
                    f"{path}: line {reader.line_num}: expected {len(columns)} cells, as in the first line, "
                    f"got {len(cells)}"
                )
            # The first column of a table that pandas wrote has no name and contains the numbers of the rows.
            yield {name: _parse(cell) for name, cell in zip(columns, cells, strict=False) if name}

    rows = parse_rows()
    first = next(rows, None)
    if first is None:
        raise LookupError(f"{path}: contains no row")
    table = TableRows(path, [name for name in columns if name], step, first)
    yield from table.convert(itertools.chain([first], rows), _last_elapsed_time(path, columns, delimiter))


def _parse(cell: str) -> float | int | str:
    try:
        return int(cell) if cell.isdecimal() else float(cell)
    except ValueError:
        pass
    try:
        return int(cell)
    except ValueError:
        return cell.strip()


def _last_elapsed_time(path: Path, columns: list[str], delimiter: str) -> float | None:
    """Return the elapsed time in the last row, which was written when the file was modified last."""
    names = [name.lower() for name in columns]
    if "elapsed_time" not in names:
        return None
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
        lines = file.read().decode(errors="replace").splitlines()
    cells = next(csv.reader(lines[-1:], delimiter=delimiter), [])
    value = _parse(cells[names.index("elapsed_time")]) if len(cells) == len(columns) else ""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
