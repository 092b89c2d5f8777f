"""How the commands print: tables, strict JSON, and one line where something is wrong."""

from __future__ import annotations

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
    """The standard output."""
    return Console(width=None if sys.stdout.isatty() else _UNBOUNDED)


def print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a column for each key, in the order in which they come; nothing without rows."""
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title or None, title_justify="left", box=None)
    for column in columns:
        has_texts = any(isinstance(row.get(column), str) for row in rows)
        table.add_column(escape(column), overflow="fold", justify="left" if has_texts else "right")
    for row in rows:
        table.add_row(*(cell(row.get(column, "")) for column in columns))
    if title:
        console.print()
    console.print(table)


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
