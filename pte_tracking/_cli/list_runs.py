"""The command ``pte-tracking list``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pte_tracking._cli.arguments import directory_argument, format_error, reporting_errors
from pte_tracking._cli.rendering import AsJson, create_console, echo, fail, print_json, print_table
from pte_tracking._runs.summary import RunSummary, summarize
from pte_tracking._store.discovery import find_run, find_runs
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.metric_names import is_lower_better, primary_metric
from pte_tracking._store.metrics import MetricSummary, summarize_metrics


def list_runs(
    directory: Annotated[Path, directory_argument(help="Directory to search, including subdirectories.")],
    best: Annotated[
        str | None, typer.Option(help="Metric to show the best value of. Defaults to a validation metric.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in a directory.

    Show the status, highest step, best value, sinks, and pending events of each run.
    """
    runs: list[tuple[RunSummary, dict[str, Any] | None]] = []
    errors: list[RunNotFoundError | OSError] = []
    with reporting_errors():
        for run in find_runs(directory, errors.append):
            try:
                find_run(run)  # raises if it cannot be read
                metrics = summarize_metrics(run)
                runs.append((summarize(run, metrics), _find_best(metrics.summaries, best)))
            except (RunNotFoundError, OSError) as error:
                errors.append(error)
        # A run may disappear during the search: a fresh start archives the earlier run of the directory.
        errors = [failure for failure in errors if not isinstance(failure, FileNotFoundError)]
        for failure in errors:
            echo(format_error(failure), err=True)
        if not runs and not errors:
            fail(f"{directory}: no run found in this directory or below", 1)
        if as_json:
            print_json([msgspec.to_builtins(run) | {"best": value} for run, value in runs])
        elif runs:
            print_table(create_console(), "", [_build_row(run, value) for run, value in runs])
        if errors:
            raise typer.Exit(1)


def _find_best(metrics: Mapping[str, MetricSummary], metric: str | None) -> dict[str, Any] | None:
    key = metric or primary_metric(key for key, summary in metrics.items() if summary.lowest is not None)
    if key is None or key not in metrics:
        return None
    summary = metrics[key]
    if is_lower_better(key):
        return {"key": key, "value": summary.lowest, "step": summary.lowest_step}
    return {"key": key, "value": summary.highest, "step": summary.highest_step}


def _build_row(run: RunSummary, best: dict[str, Any] | None) -> dict[str, Any]:
    text = "-" if best is None or best["value"] is None else f"{best['key']} {best['value']:.6g} (step {best['step']})"
    return {
        "Run": run.directory,
        "Name": run.name,
        "Status": run.status,
        "Step": run.step,
        "Best": text,
        "Sinks": " ".join(run.sinks),
        "Pending": "; ".join(map(str, run.pending)) or "-",
    }
