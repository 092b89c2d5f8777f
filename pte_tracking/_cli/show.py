"""The command ``pte-tracking show``."""

from __future__ import annotations

import contextlib
import datetime
import io
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from pte_tracking._cli.arguments import RunDir, reporting_errors
from pte_tracking._cli.checkpoint_table import print_checkpoints
from pte_tracking._cli.origin import describe_provenance
from pte_tracking._cli.parameters import describe_params
from pte_tracking._cli.plot import print_plot
from pte_tracking._cli.rendering import (
    AsJson,
    create_console,
    fail,
    format_cell,
    print_json,
    print_latest,
    print_line,
    print_table,
)
from pte_tracking._delivery.hidden_kinds import name_kind
from pte_tracking._runs.summary import RunSummary, summarize
from pte_tracking._store.discovery import find_run
from pte_tracking._store.metrics import RunMetrics, summarize_metrics
from pte_tracking._store.printable import escape_line

_WATCH_SECONDS = 2
_PLOT_HEIGHT = 15  # lines
_MIN_PLOT_HEIGHT = 6
_MAX_REJECTED = 10  # rejected events of each sink to print


def show(
    run: RunDir,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every two seconds until the run ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the details of a run.

    Show where the run is found in its backends, its code and environment, parameters, last rows, a plot, checkpoints,
    pending and rejected events with the reason, kinds of events that a backend does not show, and messages of the
    delivery process.
    """
    if watch and (as_json or not sys.stdout.isatty() or create_console().is_dumb_terminal):
        fail("--watch: expected a terminal other than TERM=dumb, and no --json", 2)
    with reporting_errors(run):
        find_run(run)  # raises if the directory contains no run
        console = create_console()
        if watch:
            _watch(console, run)
        metrics = summarize_metrics(run)
        summary = summarize(run, metrics)
        if as_json:
            print_json(msgspec.to_builtins(summary))
            return
        _print(console, run, summary, metrics)


def _watch(console: Console, run: Path) -> None:
    """Show the run on the whole terminal until it ends, or until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            metrics = summarize_metrics(run)
            summary = summarize(run, metrics)
            if summary.status != "RUNNING":
                return
            live.update(Text.from_ansi(draw_page(console, run, summary, metrics)), refresh=True)
            time.sleep(_WATCH_SECONDS)


def draw_page(console: Console, run: Path, summary: RunSummary, metrics: RunMetrics) -> str:
    """Return a page that fits the terminal, if necessary without the parts that do not change, and with a low plot."""
    for is_complete, plot_height in ((True, _PLOT_HEIGHT), (False, _PLOT_HEIGHT), (False, _MIN_PLOT_HEIGHT)):
        page = Console(
            file=io.StringIO(),
            width=console.width,
            color_system=console.color_system,  # type: ignore[arg-type]  # one of the names that are accepted
            force_terminal=True,
            highlight=False,
            emoji=False,
        )
        with page.capture() as capture:
            _print(page, run, summary, metrics, is_complete=is_complete, plot_height=plot_height)
        if capture.get().count("\n") <= console.height:
            break
    return capture.get()


def _print(
    console: Console,
    directory: Path,
    run: RunSummary,
    metrics: RunMetrics,
    *,
    is_complete: bool = True,
    plot_height: int = _PLOT_HEIGHT,
) -> None:
    name, shown_directory = format_cell(run.name), format_cell(run.directory)
    console.print(f"[bold]{name}[/bold]  {run.status}  {shown_directory}")
    if is_complete:
        _print_origin(console, run)
    else:  # The end of the page may be cut.
        _print_warnings(console, run)
    print_latest(console, "Last rows", run.rows)
    print_plot(console, directory, metrics, plot_height)
    if is_complete:
        for log, rows in run.other_rows.items():
            print_latest(console, f"Last rows of {format_cell(log)}", rows)
        print_checkpoints(console, directory, run)
        _print_warnings(console, run)
        for key, kinds in run.hidden.items():
            names = ", ".join(map(name_kind, kinds))
            console.print(Text(escape_line(f"Not shown by {key}, but stored in the run directory: {names}"), "dim"))
    for line in run.delivery_log:
        print_line(console, f"Delivery: {line}", "dim")


def _print_warnings(console: Console, run: RunSummary) -> None:
    for sink in run.pending:
        print_line(console, str(sink), "bold")
    for key, events in run.rejected.items():
        numbers_by_reason: dict[str, list[str]] = {}
        for seq in sorted(events, key=int)[:_MAX_REJECTED]:
            numbers_by_reason.setdefault(events[seq], []).append(seq)
        for reason, numbers in numbers_by_reason.items():
            noun = "Event" if len(numbers) == 1 else "Events"
            print_line(console, f"{noun} {', '.join(numbers)} rejected by {key}: {reason}", "bold")
        if len(events) > _MAX_REJECTED:
            print_line(console, f"More events rejected by {key}: {len(events) - _MAX_REJECTED}", "bold")


def _print_origin(console: Console, run: RunSummary) -> None:
    started = datetime.datetime.fromtimestamp(run.start_time).astimezone()
    print_line(console, f"ID {run.id}, started {started:%Y-%m-%d %H:%M:%S %Z}")
    if run.group is not None:
        print_line(console, f"Group: {run.group}")
    print_line(console, f"Sinks: {', '.join(run.sinks) or 'none'}")
    for location in run.locations:
        print_line(console, str(location))
    for line in describe_provenance(run.provenance):
        print_line(console, line)
    params = describe_params(run)
    print_table(console, "Parameters", [{"Parameter": key, "Value": value} for key, value in params.items()])
