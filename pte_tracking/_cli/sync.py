"""The command ``pte-tracking sync``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pte_tracking._cli.arguments import directory_argument, reporting_errors, suggest_run
from pte_tracking._cli.rendering import AsJson, echo, fail, print_json
from pte_tracking._delivery.follow import follow as follow_runs
from pte_tracking._delivery.garbage import collect_garbage_rarely
from pte_tracking._delivery.ownership import check_owner
from pte_tracking._delivery.sink_entries import check_sinks
from pte_tracking._delivery.sync import sync as sync_run
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking._store.similar import suggest
from pte_tracking.sinks import Sink, get_sink


class OrderedCommand(TyperCommand):
    """Command that keeps the arguments in order, since an ``--option`` belongs to the ``--to`` before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = list(args)
        return super().parse_args(ctx, args)


def sync(
    ctx: typer.Context,
    run: Annotated[
        Path, directory_argument(metavar="RUN", help="Run directory. With --follow, a directory that contains runs.")
    ],
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Maximum number of seconds without progress.")
    ] = 60.0,
    to: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Add a backend to the run permanently. May be repeated.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option for the backend in the preceding --to. May be repeated."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Deliver all runs in the directory until interrupted.")
    ] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Deliver runs of other users, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver all pending events of a run."""
    collect_garbage_rarely()
    if follow:
        _follow(run, to, as_json, trust)
        return
    try:
        with reporting_errors(run):
            if not trust:
                check_owner(run)
            # Client libraries print messages, which would be in the middle of the JSON output.
            with contextlib.redirect_stdout(sys.stderr):
                pending = sync_run(run, timeout, _parse_sinks(ctx.obj))
    except (ValueError, TypeError) as error:
        fail(str(error), 2)
    if as_json:
        print_json([sink._asdict() for sink in pending])
    elif not pending:
        echo(f"{run}: all events delivered")
    else:
        for sink in pending:
            echo(str(sink), err=True)
        if process := lock.holder(run / DELIVERY_LOCK):
            echo(f"{process} continues to deliver, with the code and the environment of its start", err=True)
    if pending:
        raise typer.Exit(1)


def _follow(directory: Path, to: list[str] | None, as_json: bool, trust: bool) -> None:
    if as_json:
        fail("--follow cannot be combined with --json.", 2)
    if to:
        fail("--follow cannot be combined with --to. Add the sink to each run with: pte-tracking sync RUN --to NAME", 2)
    if not directory.is_dir():
        fail(f"{directory}: no such directory{suggest_run(directory)}", 1)
    follow_runs(directory, echo, trust=trust)


def _parse_sinks(arguments: list[str]) -> list[Sink]:
    """Build the sinks from the ``--to`` and ``--option`` arguments.

    Raises:
        ValueError: If a sink or an option is unknown, or an option precedes every ``--to``.
    """
    requested: list[tuple[str, dict[str, str]]] = []
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
            raise ValueError(f"--option: expected KEY=VALUE after a --to, got {value!r}")
        if key in requested[-1][1]:
            raise ValueError(f"--option: {key!r} is given twice for --to {requested[-1][0]}")
        requested[-1][1][key] = text
    return check_sinks([_build_sink(name, options) for name, options in requested])


def _build_sink(name: str, options: dict[str, str]) -> Sink:
    sink_class = get_sink(name)
    fields = {field.name: field for field in dataclasses.fields(sink_class) if not field.name.startswith("_")}
    for key in options:
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise ValueError(
                f"--to {name}: unknown option {key!r}.{suggest(key, fields)} Options of this sink: {known}."
            )
    return sink_class(**{key: _parse_value(text, fields[key]) for key, text in options.items()})


def _parse_value(text: str, field: dataclasses.Field[Any]) -> Any:
    """Parse an option. The text of a string option that looks like a number, such as an ID, stays a string."""
    is_text = "str" in str(field.type) and "Sequence[" not in str(field.type)
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if is_text and not isinstance(value, str | None) else value
