"""Select the snapshot that a training resumes from."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pte_tracking._distributed.world import World
from pte_tracking._runs.directory_lock import check_other_processes
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.run import Run
from pte_tracking._snapshots.candidate import Candidate, SelectedSnapshot, first_intact, load_fetched, report_skipped
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.fetching import fetch, fetch_from_sinks, is_uri
from pte_tracking._snapshots.file import peek
from pte_tracking._snapshots.retention import BestPolicy
from pte_tracking._snapshots.template import Template
from pte_tracking._store import lock
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.files import absolute_path
from pte_tracking._store.journal_reader import effective_ranges, seq_at
from pte_tracking._store.layout import JOURNAL, MANIFEST, WRITER_LOCK
from pte_tracking._store.manifest import check_format
from pte_tracking._store.replacing import restore_replaced

_logger = logging.getLogger("pte_tracking")
_REMEDY = (
    "The lost iterations are trained again. To keep them, stop this training, restore a file from a copy, and pass its "
    "path to resume()."
)


def select_snapshot(
    run: Run, source: str | os.PathLike[str], templates: Sequence[Template], best: BestPolicy | None, world: World
) -> SelectedSnapshot | None:
    """Select, verify, and read a snapshot. Call this on every rank; each verifies a part.

    Args:
        run: The run, which is not open yet.
        source: ``"latest"``, ``"best"``, a path, or the URI of a tracked checkpoint.
        templates: Names of the snapshots in the run directory.
        best: Ranking for ``"best"``.
        world: The ranks.

    Returns:
        The snapshot. None if the run has no usable snapshot yet.

    Raises:
        SnapshotError: If a snapshot given by path or URI is damaged or not a snapshot.
        TypeError: If the source is neither a string nor a path.
        LookupError: If the URI does not exist, or if no snapshot has a value to rank by.
        ValueError: If no sink supports the URI, or if ``"best"`` is given without a ranking.
        DirectoryInUseError: If another live process writes to the run directory.
        RuntimeError: If the run is open, or on other ranks if one of these errors occurred on rank 0.
    """
    candidates = world.run_on_rank_zero("resume()", lambda: list(_candidates(run, source, templates, best)))
    if source in ("latest", "best"):
        selected, problems = first_intact(candidates, world)
        report_skipped("resume", problems, selected, _REMEDY, world.rank)
        if selected is None:
            rank = functools.partial(_rank, source, best)
            fetched = world.run_on_rank_zero("resume()", lambda: fetch_from_sinks(run, rank))
            selected = None if fetched is None else load_fetched(fetched, world)
        return selected
    (candidate,) = candidates
    return load_fetched(candidate, world)


def _candidates(
    run: Run, source: str | os.PathLike[str], templates: Sequence[Template], best: BestPolicy | None
) -> Iterable[Candidate]:
    if run.is_open:
        raise RuntimeError("resume(): the run is already open. Call resume() before run.open().")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"resume: expected 'latest', 'best', a path, or a URI, got {source!r}")
    check_format(run.directory)  # before a directory for a fetched snapshot is created
    check_other_processes(run.directory)  # Its retention would delete snapshots while they are verified.
    if not lock.is_held(run.directory / WRITER_LOCK):  # Otherwise, a training may just be replacing one.
        for checkpoint in run.checkpoints():
            restore_replaced(run.directory / checkpoint.path)
    if source == "latest":
        return _candidates_by_step(run, templates)
    if source == "best":
        return _candidates_by_value(run, best)
    if isinstance(source, str) and is_uri(source):
        return [fetch(source, [sink.resolve() for sink in run.sinks], run.directory, "resume")]
    path = absolute_path(source, run.directory)
    if (path / MANIFEST).exists():
        raise SnapshotError(
            path,
            f"a run directory, not a snapshot. Pass one of its snapshots, or continue the run with out_dir={source!r}",
        )
    return [Candidate.at_path(path, find_unlisted(run, templates))]


def _candidates_by_step(run: Run, templates: Sequence[Template]) -> Iterable[Candidate]:
    """Return the snapshots of a run, those with the highest step first."""
    by_step = [(checkpoint.step, Candidate.listed(run.directory, checkpoint)) for checkpoint in run.checkpoints()]
    by_step += [(step, Candidate(path)) for path, step in find_unlisted(run, templates).items()]
    return [candidate for _, candidate in sorted(by_step, key=lambda item: item[0], reverse=True)]


def find_unlisted(run: Run, templates: Sequence[Template], *, warns: bool = True) -> dict[Path, int]:
    """Find snapshots that were published just before a crash and are not registered.

    Args:
        run: The run.
        templates: Names of the snapshots in the run directory.
        warns: Whether to log unreadable ones.

    Returns:
        The step of each snapshot by path.
    """
    known_steps = {checkpoint.path: checkpoint.step for checkpoint in run.checkpoints()}
    unlisted = {}
    for template in templates:
        # Several iterations may have one name, such as that of their epoch.
        newest = max(filter(template.matches, known_steps), key=known_steps.__getitem__, default=None)
        for name in template.list_files(run.directory):
            path = run.directory / name
            is_candidate = name not in known_steps or name == newest
            position = _read_position(path, warns and name not in known_steps) if is_candidate else None
            if position is not None and position["step"] > known_steps.get(name, -1) and _is_effective(run, position):
                unlisted[path] = position["step"]
    return unlisted


def _rank(source: object, best: BestPolicy | None, checkpoints: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
    if best is None or source == "latest":
        return checkpoints[::-1]
    return rank_checkpoints(checkpoints, best, "resume('best')")


def _candidates_by_value(run: Run, best: BestPolicy | None) -> Iterable[Candidate]:
    if best is None:
        raise ValueError(
            "resume('best'): no metric is configured. Pass an extension such as "
            "snapshot(keep_best=('val/loss', 'min', 3)) to the manager."
        )
    return [
        Candidate.listed(run.directory, checkpoint)
        for checkpoint in rank_checkpoints(run.checkpoints(), best, "resume('best')")
    ]


def rank_checkpoints(checkpoints: Sequence[Checkpoint], best: BestPolicy, call: str) -> list[Checkpoint]:
    """Return checkpoints in the order of a metric, the best first.

    Args:
        checkpoints: The checkpoints.
        best: The ranking.
        call: Call of the user, as named in messages.

    Raises:
        LookupError: If there are checkpoints, but none has a value to rank by.
    """
    ranked = best.ranked(checkpoints)
    if checkpoints and not ranked:
        raise LookupError(
            f"{call}: no snapshot has a finite value of {best.key!r}. Available metrics: {list_metrics(checkpoints)}."
        )
    return ranked


def list_metrics(checkpoints: Iterable[Checkpoint]) -> str:
    """Return the names of the metrics of checkpoints, for messages."""
    return ", ".join(sorted({key for checkpoint in checkpoints for key in checkpoint.values})) or "none"


def is_run_of(run: Run, position: RunPosition) -> bool:
    """Return whether a position belongs to the run in the run directory."""
    start = run.start_position()
    return start is not None and start["id"] == position["id"]


def _is_effective(run: Run, position: RunPosition) -> bool:
    """Return whether a position is in the effective history of the run."""
    journal, offset = run.directory / JOURNAL, position["position"]
    return (
        is_run_of(run, position)
        and seq_at(journal, offset) == position["seq"]
        and any(first <= offset <= last for first, last in effective_ranges(journal))
    )


def _read_position(path: Path, warns: bool) -> RunPosition | None:
    try:
        position: RunPosition | None = peek(path).get("run")
    except SnapshotError as error:
        if warns:  # The verification reports a listed one.
            _logger.warning("resume: skipping unusable snapshot: %s", error)
        return None
    return position
