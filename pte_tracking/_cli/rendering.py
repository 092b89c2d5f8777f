"""How the commands print: tables, strict JSON, and one line where something is wrong."""

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

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


#: Wider than any table: in a file, or before grep, a row is one line.
_UNBOUNDED = 10_000


def console() -> Console:
    """The standard output; what cannot be written in its encoding is a question mark there."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED)


def print_table(to: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a column for each key, in the order in which they come; nothing without rows."""
    if not rows:
        return
    if title:
        to.print()
    to.print(_table(title, rows))


def print_latest(to: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The same, for rows of many keys: where there is no room, a column for each row, of the last that fit."""
    if not rows or _fits(to, title, rows):
        print_table(to, title, rows)
        return
    first, *others = dict.fromkeys(key for row in rows for key in row)
    for number in range(len(rows), 0, -1):
        told = title if number == len(rows) else f"{title}: {number} of {len(rows)}"
        turned = [{first: key} | {cell(row[first]): row.get(key) for row in rows[-number:]} for key in others]
        if number == 1 or _fits(to, told, turned):
            print_table(to, told, turned)
            return


def _fits(to: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    return to.measure(_table(title, rows), options=to.options.update(width=_UNBOUNDED)).maximum <= to.width


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title or None, title_justify="left", box=None)
    for column in columns:
        has_texts = any(isinstance(row.get(column), str) for row in rows)
        table.add_column(escape(column), overflow="fold", justify="left" if has_texts else "right")
    for row in rows:
        table.add_row(*(cell(row.get(column, "")) for column in columns))
    return table


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


def print_json(value: Any) -> None:
    """Strict JSON: non-finite numbers are null."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def fail(message: str, code: int) -> NoReturn:
    """One line to the standard error, and the end."""
    typer.echo(message, err=True)
    raise typer.Exit(code)
