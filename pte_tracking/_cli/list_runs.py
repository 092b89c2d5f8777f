"""``pte-tracking list``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pte_tracking._cli.arguments import folder, reading, tell
from pte_tracking._cli.rendering import AsJson, console, fail, print_json, print_table
from pte_tracking._runs.summary import RunSummary, summarize
from pte_tracking._store.discovery import find_runs
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.metrics import is_lower_better, primary_metric, summarize_metrics


def list_runs(
    directory: Annotated[Path, folder(help="Where to look, with all folders below.")],
    best: Annotated[
        str | None, typer.Option(help="The value to tell the best of; a loss or an accuracy if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder: status, last step, best value, what is not delivered."""
    found: list[tuple[RunSummary, dict[str, Any] | None]] = []
    broken: list[RunNotFoundError | OSError] = []
    with reading():
        for run in find_runs(directory, broken.append):
            try:
                found.append((summarize(run), _best(run, best)))
            except (RunNotFoundError, OSError) as error:
                broken.append(error)
        # What has gone meanwhile is no trouble: a run that starts afresh moves the earlier one aside.
        broken = [one for one in broken if not isinstance(one, FileNotFoundError)]
        for one in broken:
            typer.echo(tell(one), err=True)
        if not found and not broken:
            fail(f"{directory}: no run here or below", 1)
        if as_json:
            print_json([msgspec.to_builtins(one) | {"best": value} for one, value in found])
        elif found:
            print_table(console(), "", [_row(one, value) for one, value in found])
        if broken:
            raise typer.Exit(1)


def _best(run: Path, wanted: str | None) -> dict[str, Any] | None:
    found = summarize_metrics(run)
    key = wanted or primary_metric(found)
    if key is None or key not in found:
        return None
    one = found[key]
    if is_lower_better(key):
        return {"key": key, "value": one.lowest, "step": one.lowest_step}
    return {"key": key, "value": one.highest, "step": one.highest_step}


def _row(one: RunSummary, best: dict[str, Any] | None) -> dict[str, Any]:
    told = "-" if best is None or best["value"] is None else f"{best['key']} {best['value']:.6g} (step {best['step']})"
    return {
        "run": one.directory,
        "name": one.name,
        "status": one.status,
        "step": one.step,
        "best": told,
        "sinks": " ".join(one.sinks),
        "not delivered": "; ".join(map(str, one.pending)) or "-",
    }
