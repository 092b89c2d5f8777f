"""The command ``pte-tracking verify``."""

from __future__ import annotations

import typer

from pte_tracking._cli.arguments import RunDir, reporting_errors
from pte_tracking._cli.rendering import AsJson, echo, print_json
from pte_tracking._delivery.backlog import find_lost_events
from pte_tracking._runs.verification import verify_run
from pte_tracking._store.discovery import find_run


def verify(run: RunDir, as_json: AsJson = False) -> None:
    """Check the journal and all snapshots.

    Check each line of the journal, and the checksum of each snapshot. Snapshots that are only at a mirror, because a
    resume fetched one of them, are not problems.
    """
    with reporting_errors(run):
        lost = find_lost_events(run, find_run(run))
        problems, remote = verify_run(run)
        problems = [*lost, *problems]
    if as_json:
        print_json(problems)
    else:
        for problem in problems:
            echo(problem, err=True)
        for key, paths in remote.items():
            echo(f"{run}: only in {key}, not in the run directory: {', '.join(paths)}")
    if problems:
        raise typer.Exit(1)
    if not as_json:
        echo(f"{run}: no problems found")
