"""The command ``pte-tracking export``.

Rows are read and written one at a time, so memory use does not depend on the length of the run.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import typer

from pte_tracking._cli.arguments import RunDir, reporting_errors
from pte_tracking._cli.rendering import fail
from pte_tracking._runs.summary import summarize
from pte_tracking._store.events import Metrics
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.metrics import read_rows
from pte_tracking._store.printable import escape_controls

_CLOCK_COLUMNS = ("log", "epoch", "iteration", "elapsed_time", "time")
#: Number of rows in a row group of a Parquet file.
_ROWS_PER_GROUP = 10_000


class Format(str, Enum):
    """Output formats."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


def export(
    run: RunDir,
    file_format: Annotated[
        Format, typer.Option("--format", metavar="FORMAT", help="Output format: csv, json, or parquet.")
    ] = Format.CSV,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Output file. Defaults to standard output.")
    ] = None,
) -> None:
    """Write the rows of a run as a table.

    Superseded rows are left out. The columns are log, epoch, iteration, elapsed_time, time, and one for each metric.
    A metric with one of these five names is written under metrics/, such as metrics/time.
    """
    with reporting_errors(run):
        summarize(run)  # raises if the directory contains no run
        # The columns must be known before the first row is written. Rows added after this position are left out.
        _, end = last_event(run / JOURNAL)
        keys = list(dict.fromkeys(_column_name(key) for row in read_rows(run, end) for key in row.values))
        table = map(_to_record, read_rows(run, end))
        if file_format is Format.PARQUET:
            _write_parquet(table, keys, output)
            return
        with _open_output(output) as file:
            if file_format is Format.CSV:
                writer = csv.DictWriter(file, [*_CLOCK_COLUMNS, *keys], lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
            else:
                _write_json(table, file)


def _to_record(row: Metrics) -> dict[str, Any]:
    clocks = {"log": row.log, "epoch": row.epoch, "iteration": row.step, "elapsed_time": row.elapsed_time}
    return {**{_column_name(key): value for key, value in row.values.items()}, **clocks, "time": row.time}


def _column_name(key: str) -> str:
    return f"metrics/{key}" if key in _CLOCK_COLUMNS else key


class _EscapedOutput(io.TextIOBase):
    """Standard output without control characters of the data."""

    def write(self, text: str) -> int:
        return sys.stdout.write(escape_controls(text))


@contextlib.contextmanager
def _open_output(output: Path | None) -> Iterator[IO[str] | io.TextIOBase]:
    if output is None:
        # A file or another program gets the exact text.
        yield _EscapedOutput() if sys.stdout.isatty() else sys.stdout
        return
    with open(output, "w", encoding="utf-8", newline="") as file:
        yield file


def _write_json(table: Iterable[dict[str, Any]], file: IO[str] | io.TextIOBase) -> None:
    separator = "[\n"
    for row in table:
        file.write(separator + msgspec.json.encode(row).decode())
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_parquet(table: Iterable[dict[str, Any]], keys: list[str], output: Path | None) -> None:
    if output is None:
        fail("Parquet cannot be written to standard output. Pass a file with --output.", 2)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        fail("Parquet output requires pyarrow. Run: pip install pyarrow", 1)
    column_types = {"log": pyarrow.string(), "iteration": pyarrow.int64()}
    schema = pyarrow.schema([(key, column_types.get(key, pyarrow.float64())) for key in (*_CLOCK_COLUMNS, *keys)])
    records = iter(table)
    with parquet.ParquetWriter(output, schema) as writer:
        while rows := list(itertools.islice(records, _ROWS_PER_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist([_to_floats(row) for row in rows], schema=schema))


def _to_floats(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, int) and key != "iteration" else value for key, value in row.items()}
