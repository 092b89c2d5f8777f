"""Output of the commands: tables, strict JSON, and error lines."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pte_tracking._store.printable import escape_controls, escape_line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
#: Wider than any table, so that each row is one line if the output is a file or a pipe.
_UNBOUNDED = 10_000
#: Minimum width of a column whose cells are divided into lines.
_MIN_FOLDED_WIDTH = 16


def create_console() -> Console:
    """Return a console for standard output that replaces characters its encoding lacks with question marks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # The colors of the highlighter are unreadable on some backgrounds.
    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED, highlight=False, emoji=False)


def print_table(
    console: Console,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    optional: Sequence[str] = (),
    folded: Sequence[str] = (),
    last: Sequence[str] = (),
) -> None:
    """Print a table with one column per key, in order of first appearance, or nothing without rows.

    Args:
        console: The console.
        title: Title; empty for none.
        rows: Cells by column.
        optional: Columns that are left out, in this order, while the table is wider than the console.
        folded: Columns whose cells are divided into lines first if the table is still too wide.
        last: Columns that are left out, in this order, if that does not suffice.
    """
    if not rows:
        return
    for column in optional:
        if fits(console, rows):
            break
        rows = drop_columns(rows, [column])
    if title:
        console.print()
        print_line(console, title, "table.title")
    present = [column for column in folded if any(column in row for row in rows)]
    space = console.width - _MIN_FOLDED_WIDTH * len(present)
    for column in last:
        if fits(console, rows) or _measure(console, drop_columns(rows, present)) <= space:
            break
        rows = drop_columns(rows, [column])
    is_narrow = _measure(console, drop_columns(rows, present)) > space
    table = _build_table(rows, () if is_narrow or not present else present)
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


def drop_columns(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a table without some columns."""
    return [{key: value for key, value in row.items() if key not in columns} for row in rows]


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print one line of plain text, which may come from the files of a run."""
    console.print(escape_line(text), style=style, markup=False, soft_wrap=True)


def echo(text: object, *, err: bool = False) -> None:
    """Print one line of text, which may come from the files of a run, to standard output or to standard error."""
    typer.echo(escape_line(str(text)), err=err)


def print_latest(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table, transposed and limited to the last rows that fit if the table is too wide."""
    if not rows or fits(console, rows):
        print_table(console, title, rows)
        return
    key_column, *columns = dict.fromkeys(key for row in rows for key in row)
    for number in range(len(rows), 0, -1):
        shown_title = title if number == len(rows) else f"{title}: {number} of {len(rows)}"
        transposed = [
            {key_column: key} | {format_cell(row[key_column]): row.get(key) for row in rows[-number:]}
            for key in columns
        ]
        if number == 1 or fits(console, transposed):
            print_table(console, shown_title, transposed)
            return


def fits(console: Console, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each row of a table is one line of the console."""
    return _measure(console, rows) <= console.width


def _measure(console: Console, rows: Sequence[Mapping[str, Any]]) -> int:
    unbounded = console.options.update(width=_UNBOUNDED)
    return console.measure(_build_table(rows), options=unbounded).maximum


def _build_table(rows: Sequence[Mapping[str, Any]], folded: Sequence[str] = ()) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(box=None)
    for column in columns:
        is_text = any(isinstance(row.get(column), str) for row in rows)
        table.add_column(
            escape(escape_line(column)),
            overflow="fold",
            justify="left" if is_text else "right",
            no_wrap=bool(folded) and column not in folded,
        )
    for row in rows:
        table.add_row(*(format_cell(row.get(column, "")) for column in columns))
    return table


def format_cell(value: Any) -> str:
    """Format a value for display."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else escape(escape_line(str(value)))


def print_json(value: Any) -> None:
    """Print strict JSON, with null for non-finite numbers."""
    typer.echo(escape_controls(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def fail(message: str, code: int) -> NoReturn:
    """Print a message to standard error and exit with a code."""
    echo(message, err=True)
    raise typer.Exit(code)
