"""The command ``pte-tracking list``."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pte_tracking._cli.arguments import directory_argument, format_error, reporting_errors, suggest_run
from pte_tracking._cli.rendering import AsJson, create_console, drop_columns, echo, fail, print_json, print_table
from pte_tracking._runs.summary import RunSummary, summarize
from pte_tracking._store.conditions import Condition
from pte_tracking._store.discovery import find_run, find_runs, natural_key
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.metric_names import is_lower_better, primary_metric
from pte_tracking._store.metrics import MetricSummary, summarize_metrics
from pte_tracking._store.similar import suggest_or_list

_QUALIFIERS = ("params.", "metrics.", "tags.")


@dataclasses.dataclass(frozen=True)
class _ListedRun:
    summary: RunSummary
    metrics: dict[str, MetricSummary]

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """Values by name, for conditions and the order of the list."""
        run = self.summary
        metrics = {key: metric.last for key, metric in self.metrics.items()}
        kinds: dict[str, Mapping[str, Any]] = {"params": run.params, "metrics": metrics, "tags": run.tags}
        qualified = {f"{kind}.{name}": value for kind, values in kinds.items() for name, value in values.items()}
        columns = {"status": run.status, "name": run.name, "step": run.step, "id": run.id}
        columns |= {} if run.group is None else {"group": run.group}
        return run.tags | metrics | run.params | columns | qualified


def list_runs(
    directory: Annotated[
        Path,
        directory_argument(
            metavar="DIR",
            help="Directory to search, including subdirectories. Defaults to the current one.",
        ),
    ] = Path(),
    best: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="Metric to show the best value of. Defaults to a validation metric."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Condition on the listed runs, such as \"lr < 0.01 and status == 'FAILED'\".",
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="NAME", help="Metric (best value first), or other name to sort by.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in a directory.

    Show the status, highest step, best value, sinks, and pending events of each run.

    A name in --where or --sort is status, name, group, step, id, a parameter, a metric (--where compares its last
    value), or a tag, in this order. params.NAME, metrics.NAME, and tags.NAME select one kind. Names with unusual
    characters are enclosed in backquotes in --where. A run without a value is not listed by --where, and listed last by
    --sort.
    """
    condition = _parse(where)
    if not os.path.lexists(directory):
        fail(f"{directory}: no such directory{suggest_run(directory)}", 1)
    errors: list[RunNotFoundError | OSError] = []
    with reporting_errors():
        runs = _read_runs(directory, errors)
        for failure in errors:
            echo(format_error(failure), err=True)
        if not runs and not errors:
            fail(f"{directory}: no run found in this directory or below", 1)
        if condition is not None and runs:
            runs = _select(runs, condition)
            if not runs:
                fail(f"{directory}: no run matches --where {where!r}", 1)
        if sort is not None and runs:
            runs = _sort(runs, sort)
        if best is not None and runs and not any(best in run.metrics for run in runs):
            fail(f"--best: no run has the metric {best!r}.{suggest_or_list(best, _list_metrics(runs))}", 2)
        if best is None and sort is not None and any(sort in run.metrics for run in runs):
            best = sort
        found = [(run.summary, _find_best(run, best)) for run in runs]
        if as_json:
            print_json([msgspec.to_builtins(run) | {"best": value} for run, value in found])
        elif runs:
            _print(found)
        if errors:
            raise typer.Exit(1)


def _parse(where: str | None) -> Condition | None:
    try:
        return None if where is None else Condition(where)
    except ValueError as error:
        fail(f"--where: {error}", 2)


def _read_runs(directory: Path, errors: list[RunNotFoundError | OSError]) -> list[_ListedRun]:
    """Read all runs, and add the errors of those that cannot be read to a list."""
    runs = []
    for path in find_runs(directory, errors.append):
        try:
            find_run(path)  # raises if it cannot be read
            metrics = summarize_metrics(path)
            runs.append(_ListedRun(summarize(path, metrics), metrics.summaries))
        except (RunNotFoundError, OSError) as error:
            errors.append(error)
    # A run may disappear during the search: a fresh start archives the earlier run of the directory.
    errors[:] = [failure for failure in errors if not isinstance(failure, FileNotFoundError)]
    return runs


def _select(runs: Sequence[_ListedRun], condition: Condition) -> list[_ListedRun]:
    for name in sorted(condition.names):
        _check_known("--where", name, runs)
    selected, errors = [], []
    for run in runs:
        try:
            selected += [run] if condition.holds(run.values) else []
        except ValueError as error:  # A parameter may be a number in some runs and a text in others.
            errors.append(error)
    if len(errors) == len(runs):
        fail(f"--where: {errors[0]}", 2)
    return selected


def _sort(runs: Sequence[_ListedRun], name: str) -> list[_ListedRun]:
    _check_known("--sort", name, runs)
    key = name.removeprefix("metrics.")
    is_metric = any(key in run.metrics for run in runs)

    def rank(run: _ListedRun) -> tuple[bool, bool, Any]:
        if is_metric:
            best = _find_best(run, key)
            value = None if best is None or best["value"] is None else best["value"]
            value = -value if value is not None and not _is_lower_better(run, key) else value
        else:
            value = run.values.get(name)
        if isinstance(value, str):
            return False, True, natural_key(value)
        return value is None, False, value or 0

    return sorted(runs, key=rank)


def _check_known(option: str, name: str, runs: Sequence[_ListedRun]) -> None:
    if any(name in run.values for run in runs):
        return
    known = dict.fromkeys(itertools.chain.from_iterable(run.values for run in runs))
    is_qualified = name.startswith(_QUALIFIERS)
    names = [other for other in known if other.startswith(_QUALIFIERS) == is_qualified]
    fail(f"{option}: no run has a value of {name!r}.{suggest_or_list(name, names)}", 2)


def _list_metrics(runs: Sequence[_ListedRun]) -> Iterable[str]:
    return dict.fromkeys(itertools.chain.from_iterable(run.metrics for run in runs))


def _is_lower_better(run: _ListedRun, key: str) -> bool:
    """Whether lower values of a metric are better, by the ranking of the snapshots, or else by its name."""
    ranking = run.summary.ranking
    return is_lower_better(key) if ranking is None or ranking[0] != key else ranking[1] == "min"


def _find_best(run: _ListedRun, metric: str | None) -> dict[str, Any] | None:
    """Return the best value of a metric. Defaults to the metric that ranks the snapshots, or else the primary one."""
    metrics, ranking = run.metrics, run.summary.ranking
    ranked = None if ranking is None or ranking[0] not in metrics else ranking[0]
    key = metric or ranked or primary_metric(key for key, summary in metrics.items() if summary.lowest is not None)
    if key is None or key not in metrics:
        return None
    summary = metrics[key]
    if _is_lower_better(run, key):
        return {"key": key, "value": summary.lowest, "step": summary.lowest_step}
    return {"key": key, "value": summary.highest, "step": summary.highest_step}


def _print(found: Sequence[tuple[RunSummary, dict[str, Any] | None]]) -> None:
    """Print a table, without the columns that a narrow terminal has no space for."""
    keys = {best["key"] for _, best in found if best is not None}
    # A metric that all runs have is named once.
    title = f"Best {keys.pop()}" if len(keys) == 1 else "Best"
    rows = [_build_row(run, best, title) for run, best in found]
    optional = ["Sinks", "Name"]
    if not any(run.group for run, _ in found):
        rows = drop_columns(rows, ["Group"])
    if not any(run.pending for run, _ in found):
        optional.append("Pending")
    print_table(
        create_console(), "", rows, optional=(*optional, "Group", "At step"), folded=("Run", "Pending"), last=["Step"]
    )


def _build_row(run: RunSummary, best: dict[str, Any] | None, title: str) -> dict[str, Any]:
    value = None if best is None else best["value"]
    return {
        "Run": run.directory,
        "Name": run.name,
        "Group": run.group or "-",
        "Status": run.status,
        "Step": run.step,
        title: value if best is None or value is None or title != "Best" else f"{best['key']} {value:.6g}",
        "At step": None if best is None else best["step"],
        "Sinks": " ".join(run.sinks),
        "Pending": "; ".join(sink.short_text for sink in run.pending) or "-",
    }
