"""Descriptions on the pages of MLflow.

A description is written once, when its object is created, so it replaces no text that a user enters later.
"""

from __future__ import annotations

import os
import shlex

from pte_tracking.sinks import Checkpoint, Model, RunView

#: Tag in which MLflow stores the description of a run or a logged model, as Markdown.
DESCRIPTION = "mlflow.note.content"
REGISTERED_MODEL = "Models exported during training. The alias `best` is the version with the best metric of all runs."
_MAX_CHARACTERS = 1000  # a tag has at most 5000 characters in older versions of MLflow


def describe_run(run: RunView) -> str:
    """Return how a run was started, and how to show and resume it.

    The page shows about five lines at first.

    Args:
        run: Run to deliver.
    """
    command, host = run.context.get("command", ""), run.context.get("host", "")
    show = _code(f"pte-tracking show {shlex.quote(os.path.abspath(run.directory))}")
    origin = (f"Started with {_code(command)}" if command else "Started") + (f" on {_code(host)}." if host else ".")
    lines = [
        origin,
        f"Show: {show}",
        'Resume: `manager.resume()` in the same directory, or `manager.resume("runs:/ID")` elsewhere, '
        "with the run ID of this page",
    ]
    return "  \n".join(lines)  # two spaces are a line break in Markdown


def describe_group(group: str) -> str:
    """Return the purpose of the parent of a group.

    Args:
        group: Name of the group.
    """
    return f"Parent of all runs of the group {_code(group)}. The child runs contain the metrics."


def describe_checkpoint(event: Checkpoint, run: RunView) -> str:
    """Return the content of a checkpoint, and how to resume from it.

    Args:
        event: Checkpoint event.
        run: Run to deliver.
    """
    epoch = "" if event.epoch is None else f" (epoch {event.epoch})"
    return (
        f"Snapshot of run {_code(run.name)} after iteration {event.step}{epoch}.  \n"
        'Resume: `manager.resume("models:/ID")`, with the model ID of this page'
    )


def describe_model(event: Model, run: RunView) -> str:
    """Return the origin of an exported model, and the metric by which it is the best.

    Args:
        event: The exported model.
        run: Run to deliver.
    """
    text = f"Iteration {event.step} of run {_clean(run.name)}."
    if not event.best:
        return text
    # The list of versions shows the first words, and not as Markdown.
    extreme = "highest" if event.best.mode == "max" else "lowest"
    return f"{_clean(event.best.key)} {event.best.value:.6g}, the {extreme} of the run so far. {text}"


def _code(text: str) -> str:
    """Format a text as code in Markdown."""
    return "`" + _clean(text).replace("`", "'") + "`"


def _clean(text: str) -> str:
    """Return a text in one line, without characters that cannot be stored, and shortened if it is long."""
    storable = text.encode("utf-8", "replace").decode().replace("\0", "")
    line = " ".join(storable.split())
    return line if len(line) <= _MAX_CHARACTERS else line[:_MAX_CHARACTERS] + "…"
