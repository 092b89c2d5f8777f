"""The command ``pte-tracking``: look at runs, and deliver what is left of them.

Exit codes: 0 all is well, 1 something is left or broken, 2 wrong use.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand

from pte_tracking.runs.manifest import NotARun, check_sinks
from pte_tracking.runs.sink import Sink, find
from pte_tracking.runs.summary import Summary, runs_below, summarize
from pte_tracking.runs.sync import sync as sync_run
from pte_tracking.runs.verification import problems

app = typer.Typer(no_args_is_help=True, add_completion=True, help=__doc__, pretty_exceptions_enable=False)

RunDir = Annotated[Path, typer.Argument(help="The run's directory (out_dir).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class _InOrder(TyperCommand):
    """Keeps the order of the words, which tells which ``--to`` an ``--option`` belongs to."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = list(args)
        return super().parse_args(ctx, args)


@app.callback()
def main() -> None:
    """Look at runs, and deliver what is left of them."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)


@app.command("list")
def list_runs(
    directory: Annotated[Path, typer.Argument(help="Where to look, with all folders below.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder: status, last step, what is not delivered."""
    found = []
    for run in runs_below(directory):
        try:
            found.append(summarize(run))
        except (NotARun, OSError) as error:
            typer.echo(str(error), err=True)
    if not found:
        _fail(f"{directory}: no run here or below", 1)
    if as_json:
        _print_json([msgspec.to_builtins(one) for one in found])
        return
    table = Table(box=None)
    for title in ("run", "name", "status", "step", "sinks", "not delivered"):
        table.add_column(title, overflow="fold")
    for one in found:
        left = "; ".join(map(str, one.pending)) or "-"
        step = "-" if one.step is None else str(one.step)
        table.add_row(one.directory, one.name, one.status, step, " ".join(one.sinks), left)
    Console().print(table)


@app.command()
def show(run: RunDir, as_json: AsJson = False) -> None:
    """Show one run: params, last rows, checkpoints, what is not delivered and why."""
    try:
        summary = summarize(run)
    except NotARun as error:
        _fail(str(error), 1)
    if as_json:
        _print_json(msgspec.to_builtins(summary))
        return
    _print_summary(summary)


@app.command()
def verify(run: RunDir) -> None:
    """Check the journal, and every snapshot against its checksum."""
    try:
        found = list(problems(run))
    except NotARun as error:
        _fail(str(error), 1)
    for problem in found:
        typer.echo(problem, err=True)
    if found:
        raise typer.Exit(1)
    typer.echo(f"{run}: journal and snapshots are whole")


@app.command(cls=_InOrder)
def sync(
    ctx: typer.Context,
    run: RunDir,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds without progress before giving up.")] = 60.0,
    to: Annotated[list[str] | None, typer.Option(help="Add this sink to the run, for good.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting of the --to before it.")
    ] = None,
) -> None:
    """Deliver until nothing is left."""
    try:
        left = sync_run(run, timeout, _sinks(ctx.obj))
    except NotARun as error:
        _fail(str(error), 1)
    except (ValueError, TypeError) as error:
        _fail(str(error), 2)
    for one in left:
        typer.echo(f"not delivered: {one}", err=True)
    if left:
        raise typer.Exit(1)
    typer.echo(f"everything of {run} is delivered")


def _sinks(words: list[str]) -> list[Sink]:
    """The sinks that the command line names, each with the options behind it.

    Raises:
        ValueError: A sink or an option is unknown, or an option stands before any ``--to``.
    """
    wanted: list[tuple[str, dict[str, Any]]] = []
    pairs = iter(words)
    for word in pairs:
        name, is_joined, value = word.partition("=")
        if name not in ("--to", "--option"):
            continue
        value = value if is_joined else next(pairs, "")
        if name == "--to":
            wanted.append((value, {}))
            continue
        key, has_value, text = value.partition("=")
        if not wanted or not has_value:
            raise ValueError(f"--option {value!r}: expected KEY=VALUE behind a --to")
        wanted[-1][1][key] = _plain(text)
    return check_sinks([_build(name, options) for name, options in wanted])


def _build(name: str, options: dict[str, Any]) -> Sink:
    found = find(name)
    try:
        return found(**options)
    except TypeError as error:
        fields = ", ".join(field.name for field in dataclasses.fields(found)) or "none"
        raise ValueError(f"--to {name}: {error}; its options are: {fields}") from error


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print_summary(run: Summary) -> None:
    console = Console()
    console.print(f"[bold]{escape(run.name)}[/bold]  {run.status}  {escape(run.directory)}", highlight=False)
    started = datetime.datetime.fromtimestamp(run.start_time).astimezone()
    console.print(f"id {run.id}, started {started:%Y-%m-%d %H:%M:%S %Z}", highlight=False)
    console.print(f"sinks: {', '.join(run.sinks) or 'none'}", highlight=False)
    _print_table(console, "params", [{"param": key, "value": value} for key, value in run.params.items()])
    _print_table(console, "last rows", run.rows)
    snapshots = [{"checkpoint": one.path, "step": one.step, "bytes": one.size, **one.values} for one in run.checkpoints]
    _print_table(console, "checkpoints", snapshots)
    for one in run.pending:
        console.print(f"not delivered: {one}", style="yellow", markup=False)
    for line in run.said:
        console.print(f"delivery: {line}", style="dim", markup=False)


def _print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left", box=None)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column != columns[0] else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    console.print()
    console.print(table)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


def _print_json(value: Any) -> None:
    # Strict JSON: the encoder writes non-finite numbers as null.
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
