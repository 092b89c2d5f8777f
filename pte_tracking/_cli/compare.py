"""The command ``pte-tracking compare``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pte_tracking._cli.arguments import directory_argument, format_error, is_run, reporting_errors
from pte_tracking._cli.comparison_plot import plot_comparison
from pte_tracking._cli.comparison_tables import print_facts, print_metrics, print_states
from pte_tracking._cli.origin import select_compared
from pte_tracking._cli.parameters import describe_params
from pte_tracking._cli.rendering import AsJson, create_console, echo, fail, print_json, print_line
from pte_tracking._runs.summary import summarize
from pte_tracking._store.discovery import find_run, find_runs
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.metrics import MetricSummary, summarize_metrics
from pte_tracking._store.similar import suggest_or_list


def compare(
    runs: Annotated[
        list[Path],
        directory_argument(metavar="RUN", help="Directories of two or more runs, or directories that contain them."),
    ],
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write a plot of the metrics to, such as out.png.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC", help="Metric to show and plot. May be repeated. Defaults to all metrics."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the parameters and metrics of runs.

    Show status, step, differing parameters, code, and software, and last, lowest, and highest value of each metric.
    """
    errors: list[RunNotFoundError | OSError] = []
    with reporting_errors():
        compared = [path for run in runs for path in _find_runs(run, errors)]
        if len(compared) < (1 if plot else 2) and not errors:
            fail(
                f"compare: expected at least two runs, got {', '.join(map(str, compared))}. "
                "Pass the directories of two or more runs, or a directory that contains them.",
                2,
            )
        summaries = {str(run): summarize(run) for run in compared}
        differing = _find_differing({run: describe_params(summary) for run, summary in summaries.items()})
        origins = _find_differing({run: select_compared(summary.provenance) for run, summary in summaries.items()})
        states = {run: {"status": summary.status, "step": summary.step} for run, summary in summaries.items()}
        groups = {run: summary.group for run, summary in summaries.items()}
        metrics = {str(run): summarize_metrics(run).summaries for run in compared}
        keys = _select_keys(metrics, metric)
        if plot is not None:
            plot_comparison(plot, {run: Path(run) for run in summaries}, keys)
        if as_json:
            contents = {
                "runs": states,
                "params": {key: {run: item.params.get(key) for run, item in summaries.items()} for key in differing},
                "earlier_params": {run: item.earlier_params for run, item in summaries.items() if item.earlier_params},
                "groups": groups,
                "provenance": origins,
                "metrics": {run: {k: values[k] for k in keys if k in values} for run, values in metrics.items()},
            }
            print_json(msgspec.to_builtins(contents))
        else:
            console = create_console()
            print_states(console, states)
            if len(set(groups.values())) > 1:
                print_facts(console, "Groups that differ", "Fact", {"Group": groups})
            print_facts(console, "Parameters that differ", "Parameter", differing)
            print_facts(console, "Code and software that differ", "Fact", origins)
            print_metrics(console, metrics, keys)
            if plot is not None:
                print_line(console, f"Plot: {plot}")
        _report(errors)


def _report(errors: list[RunNotFoundError | OSError]) -> None:
    for line in dict.fromkeys(map(format_error, errors)):
        echo(line, err=True)
    if errors:
        raise typer.Exit(1)


def _find_runs(directory: Path, errors: list[RunNotFoundError | OSError]) -> list[Path]:
    """Return a run directory, or the runs below another directory, and add the errors of damaged ones to a list."""
    if is_run(directory) or not os.path.isdir(directory):
        with reporting_errors(directory):
            find_run(directory)
        return [directory]
    runs = []
    for path in find_runs(directory, errors.append):
        try:
            find_run(path)  # raises if it cannot be read
            runs.append(path)
        except (RunNotFoundError, OSError) as error:
            errors.append(error)
    if not runs and not errors:
        fail(f"{directory}: no run found in this directory or below", 1)
    return runs


def _select_keys(metrics: Mapping[str, Mapping[str, MetricSummary]], selected: list[str] | None) -> list[str]:
    keys = list(dict.fromkeys(key for values in metrics.values() for key in values))
    for key in selected or ():
        if key not in keys:
            fail(f"--metric: no run has the metric {key!r}.{suggest_or_list(key, keys)}", 2)
    return list(dict.fromkeys(selected)) if selected else keys


def _find_differing(params: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys(key for values in params.values() for key in values)
    table = {key: {run: values.get(key) for run, values in params.items()} for key in keys}
    # Compare representations: 1, 1.0, and True are different parameters but equal in Python.
    return {key: row for key, row in table.items() if len(set(map(repr, row.values()))) > 1}
