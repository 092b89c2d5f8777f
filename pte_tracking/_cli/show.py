"""The command ``pte-tracking show``."""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import math
import operator
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
from pte_tracking._cli.origin import describe_provenance
from pte_tracking._cli.plot import COLORS, draw_curves
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
from pte_tracking._store.metric_names import primary_metric
from pte_tracking._store.metrics import RunMetrics, read_metrics, summarize_metrics

_HEIGHT = 15
_MAX_POINTS = 500
_WATCH_SECONDS = 2
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
    if watch and (as_json or not sys.stdout.isatty()):
        fail("--watch: expected a terminal, and no --json", 2)
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
            page = Console(file=io.StringIO(), width=console.width, color_system="standard", force_terminal=True)
            with page.capture() as capture:
                _print(page, run, summary, metrics)
            live.update(Text.from_ansi(capture.get()), refresh=True)
            time.sleep(_WATCH_SECONDS)


def _print(console: Console, directory: Path, run: RunSummary, metrics: RunMetrics) -> None:
    name, shown_directory = format_cell(run.name), format_cell(run.directory)
    console.print(f"[bold]{name}[/bold]  {run.status}  {shown_directory}")
    started = datetime.datetime.fromtimestamp(run.start_time).astimezone()
    print_line(console, f"ID {run.id}, started {started:%Y-%m-%d %H:%M:%S %Z}")
    if run.group is not None:
        print_line(console, f"Group: {run.group}")
    print_line(console, f"Sinks: {', '.join(run.sinks) or 'none'}")
    for location in run.locations:
        print_line(console, str(location))
    for line in describe_provenance(run.provenance):
        print_line(console, line)
    print_table(console, "Parameters", [{"Parameter": key, "Value": value} for key, value in run.params.items()])
    print_latest(console, "Last rows", run.rows)
    _plot(console, directory, metrics)
    checkpoints = [
        {"Checkpoint": event.path, "Step": event.step, "Bytes": event.size, **event.values} for event in run.checkpoints
    ]
    print_latest(console, "Checkpoints", checkpoints)
    for sink in run.pending:
        print_line(console, str(sink), "yellow")
    for key, events in run.rejected.items():
        for seq, reason in list(events.items())[:_MAX_REJECTED]:
            print_line(console, f"Event {seq} rejected by {key}: {reason}", "yellow")
        if len(events) > _MAX_REJECTED:
            print_line(console, f"More events rejected by {key}: {len(events) - _MAX_REJECTED}", "yellow")
    for key, kinds in run.hidden.items():
        print_line(console, f"Not shown by {key}: {', '.join(map(name_kind, kinds))}", "dim")
    for line in run.delivery_log:
        print_line(console, f"Delivery: {line}", "dim")


def _plot(console: Console, directory: Path, metrics: RunMetrics) -> None:
    """Plot the primary metric together with metrics of the same name, such as the training loss."""
    primary = primary_metric(key for key, summary in metrics.summaries.items() if summary.lowest is not None)
    if primary is None:
        return
    # Keep only the plotted metrics in memory: a run may have a million rows of a hundred metrics.
    last_name = primary.rpartition("/")[2]
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read_metrics(directory):
        for key, value in row.points.items():
            if key.rpartition("/")[2] == last_name and math.isfinite(value):  # type: ignore[arg-type]  # decoded as numbers
                curves.setdefault(key, []).append((row.step, value))  # type: ignore[arg-type]
    values = [value for curve in curves.values() for _, value in curve]
    if len(curves[primary]) < 2 or not math.isfinite(max(values) - min(values)):
        return
    thinned = [_thin(curve) for curve in curves.values()]
    steps = [step for curve in thinned for step, _ in curve]
    width = max(min(console.width, 100) - 20, 20)
    limits = {0: f" {max(values):.4g}", _HEIGHT - 1: f" {min(values):.4g}"}
    console.print()
    console.print(f"┌{'─' * width}┐")
    for number, line in enumerate(draw_curves(thinned, width, _HEIGHT)):
        console.print(Text.assemble("│", line, "│", limits.get(number, "")), soft_wrap=True)
    console.print(f"└{'─' * width}┘")
    first, last = str(min(steps)), str(max(steps))
    console.print(f" {first}{last:>{width - len(first)}}", highlight=False)
    for key, color in zip(curves, itertools.cycle(COLORS), strict=False):
        print_line(console, f" {key}", color)


def _thin(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Reduce a curve to its ends and the minimum and maximum of equal segments, so that peaks stay visible."""
    if len(curve) <= _MAX_POINTS:
        return curve
    size = -(-2 * len(curve) // _MAX_POINTS)
    pieces = [curve[start : start + size] for start in range(0, len(curve), size)]
    extremes = [
        sorted({min(piece, key=operator.itemgetter(1)), max(piece, key=operator.itemgetter(1))}) for piece in pieces
    ]
    return [curve[0], *itertools.chain.from_iterable(extremes), curve[-1]]
