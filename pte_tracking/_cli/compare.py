"""The command ``pte-tracking compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pte_tracking._cli.arguments import directory_argument, reporting_errors
from pte_tracking._cli.comparison_plot import plot_comparison
from pte_tracking._cli.origin import select_compared
from pte_tracking._cli.rendering import AsJson, create_console, fail, print_json, print_line, print_table
from pte_tracking._runs.summary import summarize
from pte_tracking._store.metrics import summarize_metrics


def compare(
    runs: Annotated[list[Path], directory_argument(help="Directories of two or more runs.")],
    plot: Annotated[
        Path | None, typer.Option(help="File to write a plot of the metrics to, such as out.png.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Metric to plot; may be repeated. Defaults to all metrics.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the parameters and metrics of runs.

    Show the parameters, the code, and the software that differ, and the last, lowest, and highest value of each metric.
    """
    if metric and plot is None:
        fail("--metric selects the metrics of --plot. Pass --plot FILE as well.", 2)
    if len(runs) < 2:
        fail(f"compare: expected at least two run directories, got {len(runs)}", 2)
    with reporting_errors():
        summaries = {str(run): summarize(run) for run in runs}
        differing = _find_differing({run: summary.params for run, summary in summaries.items()})
        origins = _find_differing({run: select_compared(summary.provenance) for run, summary in summaries.items()})
        groups = {run: summary.group for run, summary in summaries.items()}
        metrics = {str(run): summarize_metrics(run).summaries for run in runs}
        keys = list(dict.fromkeys(key for values in metrics.values() for key in values))
        if unknown := [key for key in metric or () if key not in keys]:
            fail(f"--metric: no run has the metric {unknown[0]!r}. Metrics: {', '.join(sorted(keys)) or 'none'}", 2)
        if plot is not None:
            plot_comparison(plot, {str(run): run for run in runs}, metric or keys)
        if as_json:
            contents = {"params": differing, "groups": groups, "provenance": origins, "metrics": metrics}
            print_json(msgspec.to_builtins(contents))
            return
        console = create_console()
        if len(set(groups.values())) > 1:
            print_table(console, "Groups that differ", [groups])
        print_table(
            console, "Parameters that differ", [{"Parameter": key, **values} for key, values in differing.items()]
        )
        print_table(console, "Code and software that differ", [{"Fact": key, **row} for key, row in origins.items()])
        for statistic in ("last", "lowest", "highest"):
            rows = [
                {"Metric": key} | {run: getattr(values.get(key), statistic, None) for run, values in metrics.items()}
                for key in keys
            ]
            print_table(console, f"{statistic.capitalize()} values", rows)
        if plot is not None:
            print_line(console, f"Plot: {plot}")


def _find_differing(params: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    keys = dict.fromkeys(key for values in params.values() for key in values)
    table = {key: {run: values.get(key) for run, values in params.items()} for key in keys}
    # Compare representations: 1, 1.0, and True are different parameters but equal in Python.
    return {key: row for key, row in table.items() if len(set(map(repr, row.values()))) > 1}
