"""``pte-tracking sync``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pte_tracking._cli.arguments import directory_argument, reporting_errors
from pte_tracking._cli.rendering import AsJson, fail, print_json
from pte_tracking._delivery.follow import follow as follow_runs
from pte_tracking._delivery.sink_entries import check_sinks
from pte_tracking._delivery.sync import sync as sync_run
from pte_tracking.sinks import Sink, get_sink


class OrderedCommand(TyperCommand):
    """Keeps the order of the words, which tells which ``--to`` an ``--option`` belongs to."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = list(args)
        return super().parse_args(ctx, args)


def sync(
    ctx: typer.Context,
    run: Annotated[Path, directory_argument(help="The run's directory; with --follow, a folder of runs.")],
    timeout: Annotated[float, typer.Option(min=0, help="Seconds without progress before giving up.")] = 60.0,
    to: Annotated[list[str] | None, typer.Option(help="Add this sink to the run, for good.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting of the --to before it.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Deliver all runs below the folder, as they grow, until interrupted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver until nothing is left."""
    if follow:
        _follow(run, to, as_json)
        return
    try:
        with reporting_errors():
            pending = sync_run(run, timeout, _parse_sinks(ctx.obj))
    except (ValueError, TypeError) as error:
        fail(str(error), 2)
    if as_json:
        print_json([sink._asdict() for sink in pending])
    elif not pending:
        typer.echo(f"everything of {run} is delivered")
    else:
        for sink in pending:
            typer.echo(f"not delivered: {sink}", err=True)
    if pending:
        raise typer.Exit(1)


def _follow(directory: Path, to: list[str] | None, as_json: bool) -> None:
    if as_json:
        fail("sync: --follow has no end to tell of in JSON; leave --json out", 2)
    if to:
        fail("sync: --follow delivers each run to its own sinks; add one to a run by sync RUN --to", 2)
    if not directory.is_dir():
        fail(f"{directory}: no such folder", 1)
    follow_runs(directory, typer.echo)


def _parse_sinks(arguments: list[str]) -> list[Sink]:
    """The sinks that the command line names, each with the options behind it.

    Raises:
        ValueError: A sink or an option is unknown, or an option stands before any ``--to``.
    """
    requested: list[tuple[str, dict[str, Any]]] = []
    remaining = iter(arguments)
    for word in remaining:
        name, separator, value = word.partition("=")
        if name not in ("--to", "--option"):
            continue
        value = value if separator else next(remaining, "")
        if name == "--to":
            requested.append((value, {}))
            continue
        key, equals, text = value.partition("=")
        if not requested or not equals:
            raise ValueError(f"--option {value!r}: expected KEY=VALUE behind a --to")
        requested[-1][1][key] = _parse_value(text)
    return check_sinks([_build_sink(name, options) for name, options in requested])


def _build_sink(name: str, options: dict[str, Any]) -> Sink:
    sink_class = get_sink(name)
    try:
        return sink_class(**options)
    except TypeError as error:
        fields = ", ".join(field.name for field in dataclasses.fields(sink_class)) or "none"
        raise ValueError(f"--to {name}: {error}; its options are: {fields}") from error


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
