"""``pte-tracking export``: row after row, so that a run of any length takes little memory."""

from __future__ import annotations

import contextlib
import csv
import itertools
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import typer

from pte_tracking._cli.arguments import RunDir, reading
from pte_tracking._cli.rendering import fail
from pte_tracking._runs.summary import summarize
from pte_tracking._store.events import Metrics
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.metrics import read_rows

_FIRST = ("log", "epoch", "iteration", "elapsed_time", "time")
_AT_ONCE = 10_000  # rows in a piece of a Parquet file


class Format(str, Enum):
    """What to write."""

    csv = "csv"
    parquet = "parquet"
    json = "json"


def export(
    run: RunDir,
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.csv,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; the standard output if not given.")
    ] = None,
) -> None:
    """Write all rows that hold as a table: log, epoch, iteration, elapsed_time, time, and a column for each metric.

    A metric that is called like one of these five stands under metrics/, such as metrics/time.
    """
    with reading():
        summarize(run)  # is it a run at all?
        # What a training adds from here on is left out: the columns are known before the first row is written.
        _, end = last_event(run / JOURNAL)
        keys = list(dict.fromkeys(_column(key) for row in read_rows(run, end) for key in row.values))
        table = map(_plain, read_rows(run, end))
        if format is Format.parquet:
            _write_parquet(table, keys, output)
            return
        with _opened(output) as file:
            if format is Format.csv:
                writer = csv.DictWriter(file, [*_FIRST, *keys], lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
            else:
                _write_json(table, file)


def _plain(row: Metrics) -> dict[str, Any]:
    clocks = {"log": row.log, "epoch": row.epoch, "iteration": row.step, "elapsed_time": row.elapsed_time}
    return {**{_column(key): value for key, value in row.values.items()}, **clocks, "time": row.time}


def _column(key: str) -> str:
    return f"metrics/{key}" if key in _FIRST else key


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    with open(output, "w", encoding="utf-8", newline="") as file:
        yield file


def _write_json(table: Iterable[dict[str, Any]], file: IO[str]) -> None:
    separator = "[\n"
    for row in table:
        file.write(separator + msgspec.json.encode(row).decode())
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_parquet(table: Iterable[dict[str, Any]], keys: list[str], output: Path | None) -> None:
    if output is None:
        fail("export: Parquet is no text; name a file with --output", 2)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        fail("export: Parquet needs pyarrow, which is not installed: pip install pyarrow", 1)
    kinds = {"log": pyarrow.string(), "iteration": pyarrow.int64()}
    schema = pyarrow.schema([(key, kinds.get(key, pyarrow.float64())) for key in (*_FIRST, *keys)])
    rows = iter(table)
    with parquet.ParquetWriter(output, schema) as writer:
        while piece := list(itertools.islice(rows, _AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist([_floats(row) for row in piece], schema=schema))


def _floats(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, int) and key != "iteration" else value for key, value in row.items()}
