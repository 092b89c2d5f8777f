"""Table of the checkpoints of a run."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from pte_tracking._cli.rendering import print_latest
from pte_tracking._runs.summary import RunSummary
from pte_tracking._store.metric_names import primary_metric
from pte_tracking._store.printable import escape_line


def print_checkpoints(console: Console, directory: Path, run: RunSummary) -> None:
    """Print a table with one row per checkpoint, its value of one metric, and a mark at the best one.

    Args:
        console: Console to print to.
        directory: Run directory.
        run: Summary of the run.
    """
    if not run.checkpoints:
        return
    keys = itertools.chain.from_iterable(checkpoint.values for checkpoint in run.checkpoints)
    key = primary_metric(keys) if run.ranking is None else run.ranking[0]
    rows = []
    for checkpoint in run.checkpoints:
        exists = os.path.lexists(directory / checkpoint.path)
        row: dict[str, Any] = {"Checkpoint": checkpoint.path, "Step": checkpoint.step}
        row["Size"] = decimal(checkpoint.size) if exists else "no local file"
        if key is not None:
            row[key] = checkpoint.values.get(key)
        if run.ranking is not None:
            row["Best"] = "best" if checkpoint.path == run.best_checkpoint else ""
        rows.append(row)
    print_latest(console, "Checkpoints", rows)
    note = ""
    if run.ranking is not None:
        order = "lowest" if run.ranking[1] == "min" else "highest"
        note = f"Best: {order} {key}, as a mean since the previous snapshot."
        if run.best_checkpoint is None:
            note = f"Best: none, because no snapshot has a finite value of {key}."
    elif key is not None:
        note = f"{key}: latest value at the snapshot, not a mean over an interval."
    if note:
        console.print(Text(escape_line(note), "dim"))
