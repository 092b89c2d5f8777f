"""``pte-tracking sync``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pte_tracking._cli.arguments import folder, reading
from pte_tracking._cli.rendering import AsJson, fail, print_json
from pte_tracking._delivery.follow import follow as follow_runs
from pte_tracking._delivery.sink_entries import check_sinks
from pte_tracking._delivery.sync import sync as sync_run
from pte_tracking.sinks import Sink, get_sink


class InOrder(TyperCommand):
    """Keeps the order of the words, which tells which ``--to`` an ``--option`` belongs to."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = list(args)
        return super().parse_args(ctx, args)


def sync(
    ctx: typer.Context,
    run: Annotated[Path, folder(help="The run's directory; with --follow, a folder of runs.")],
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
        with reading():
            left = sync_run(run, timeout, _sinks(ctx.obj))
    except (ValueError, TypeError) as error:
        fail(str(error), 2)
    if as_json:
        print_json([one._asdict() for one in left])
    elif not left:
        typer.echo(f"everything of {run} is delivered")
    else:
        for one in left:
            typer.echo(f"not delivered: {one}", err=True)
    if left:
        raise typer.Exit(1)


def _follow(place: Path, to: list[str] | None, as_json: bool) -> None:
    if as_json:
        fail("sync: --follow has no end to tell of in JSON; leave --json out", 2)
    if to:
        fail("sync: --follow delivers each run to its own sinks; add one to a run by sync RUN --to", 2)
    if not place.is_dir():
        fail(f"{place}: no such folder", 1)
    follow_runs(place, typer.echo)


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
    found = get_sink(name)
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
