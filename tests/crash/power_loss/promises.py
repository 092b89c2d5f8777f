"""What a run promises at each moment, and the check that a resume after a loss of power keeps it."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from disk import Data, Recording, Size, Tree, build_tree, read_tree
from training import ITERATIONS, TRAININGS, Training, log_rows

import pte_tracking as pte
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.journal_reader import find_events

_STEP = re.compile(r"run/snapshots/(\d+)")


class Promise(NamedTuple):
    """What must have survived a loss of power.

    Attributes:
        step: Step of the newest snapshot that was published. 0 if there is none.
        journals: Bytes of the journals that were flushed.
        snapshots: Content of the published snapshots.
    """

    step: int
    journals: list[bytes]
    snapshots: list[bytes]


def make_promise(recording: Recording, count: int) -> Promise:
    """Return the promise of a run that loses power after ``count`` changes.

    An event is promised if its journal was flushed, and a snapshot if it was registered or if all its changes are
    durable.
    """
    durable = recording.durable_changes(count)
    complete, survivors = build_tree(recording.changes[:count]), build_tree(_select(recording, count, durable))
    # The names of the journals are promised with their content, also if their directory was not flushed.
    named = {index for index in range(count) if not isinstance(recording.changes[index], Data | Size)}
    flushed = build_tree(_select(recording, count, durable | named))
    journals = [content for name, content in flushed.items() if name.endswith("journal.jsonl") and content]
    steps = _registered_steps(complete)
    for name, content in complete.items():
        if (match := _STEP.fullmatch(name)) and content == survivors.get(name):
            steps[name] = int(match[1])
    snapshots = [content for name in steps if (content := complete.get(name))]
    return Promise(max(steps.values(), default=0), journals, snapshots)


def _select(recording: Recording, count: int, indices: set[int]) -> list[Data | Size | object]:
    return [change for index, change in enumerate(recording.changes[:count]) if index in indices]


def _registered_steps(tree: Tree) -> dict[str, int]:
    """Return the steps of the registered snapshots that exist, by path."""
    journal = tree.get("run/journal.jsonl")
    if not journal:
        return {}
    with tempfile.NamedTemporaryFile() as file:
        file.write(journal)
        file.flush()
        checkpoints = [event for event, _ in find_events(Path(file.name), Checkpoint)]
    return {f"run/{item.path}": item.step for item in checkpoints if f"run/{item.path}" in tree}


class Outcome(NamedTuple):
    """Result of a training: rows of the JSON log, data points of TensorBoard, and final weights."""

    rows: list[dict[str, float]]
    points: list[tuple[int, float]]
    weights: list[float]


def complete_training(training: Training, directory: Path) -> tuple[int, Outcome]:
    """Resume or start a training in a directory, and complete it. Return its first iteration and its result."""
    start, weights = training.run(directory)
    rows = [{key: row[key] for key in ("iteration", "loss")} for row in json.loads((directory / "log").read_text())]
    points = _read_points(directory) if "tensorboard" in training.sinks else []
    return start, Outcome(rows, points, weights)


def _read_points(directory: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        (event.step, value.tensor.float_val[0])
        for path in sorted(directory.glob("events.out.tfevents.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "loss"
    ]


def find_fault(name: str, root: Path, promise: Promise, expected: Outcome | None) -> str | None:
    """Resume a training and return which promise it breaks, or None.

    Args:
        name: Name of the training.
        root: Directory that contains the run directory.
        promise: Promise of the interrupted run.
        expected: Result of an uninterrupted training. None if it has no snapshots.
    """
    directory = root / "run"
    if expected is None:
        log_rows(directory, ITERATIONS)
        rows = [row["iteration"] for row in json.loads((directory / "log").read_text())]
        recorded = [row.step for row in pte.Run(directory).rows()]
        if rows != recorded or recorded[-1] != ITERATIONS:
            return f"the log contains the steps {rows}, the journal {recorded}"
    else:
        start, outcome = complete_training(TRAININGS[name], directory)
        if start < promise.step and name != "archived":
            return f"resumed at {start} instead of {promise.step}"
        if outcome != expected:
            return f"resumed at {start}, and the result differs: {outcome}"
    tree = read_tree(root)
    journals = [content or b"" for path, content in tree.items() if path.endswith("journal.jsonl")]
    if any(not any(content.startswith(promised) for content in journals) for promised in promise.journals):
        return "flushed events were lost"
    if name == "archived" and any(content not in tree.values() for content in promise.snapshots):
        return "a snapshot of the archived run was lost"
    return None
