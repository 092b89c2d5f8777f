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

from pte_tracking._store.printable import escape_controls

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
#: Wider than any table, so that each row is one line if the output is a file or a pipe.
_UNBOUNDED = 10_000


def create_console() -> Console:
    """Return a console for standard output that replaces characters its encoding lacks with question marks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED)


def print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]], optional: Sequence[str] = ()) -> None:
    """Print a table with one column per key, in order of first appearance, or nothing without rows.

    Args:
        console: The console.
        title: Title; empty for none.
        rows: Cells by column.
        optional: Columns that are left out, in this order, while the table is wider than the console.
    """
    if not rows:
        return
    for column in optional:
        if _fits(console, title, rows):
            break
        rows = [{key: value for key, value in row.items() if key != column} for row in rows]
    if title:
        console.print()
    console.print(_build_table(title, rows))


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print one line of plain text, which may come from the files of a run."""
    console.print(escape_controls(text), style=style, markup=False, highlight=False, soft_wrap=True)


def echo(text: object, *, err: bool = False) -> None:
    """Print a text to standard output, or to standard error, without control characters."""
    typer.echo(escape_controls(str(text)), err=err)


def print_latest(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table, transposed and limited to the last rows that fit if the table is too wide."""
    if not rows or _fits(console, title, rows):
        print_table(console, title, rows)
        return
    key_column, *columns = dict.fromkeys(key for row in rows for key in row)
    for number in range(len(rows), 0, -1):
        shown_title = title if number == len(rows) else f"{title}: {number} of {len(rows)}"
        transposed = [
            {key_column: key} | {format_cell(row[key_column]): row.get(key) for row in rows[-number:]}
            for key in columns
        ]
        if number == 1 or _fits(console, shown_title, transposed):
            print_table(console, shown_title, transposed)
            return


def _fits(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return (
        console.measure(_build_table(title, rows), options=console.options.update(width=_UNBOUNDED)).maximum
        <= console.width
    )


def _build_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title or None, title_justify="left", box=None)
    for column in columns:
        is_text = any(isinstance(row.get(column), str) for row in rows)
        table.add_column(escape(escape_controls(column)), overflow="fold", justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*(format_cell(row.get(column, "")) for column in columns))
    return table


def format_cell(value: Any) -> str:
    """Format a value for display."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else escape(escape_controls(str(value)))


def print_json(value: Any) -> None:
    """Print strict JSON, with null for non-finite numbers."""
    echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def fail(message: str, code: int) -> NoReturn:
    """Print a message to standard error and exit with a code."""
    echo(message, err=True)
    raise typer.Exit(code)
