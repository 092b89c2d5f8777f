"""Reopen a run at a snapshot: rewind its journal and register the snapshot."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pte_tracking._distributed.world import World
from pte_tracking._runs.run import Run
from pte_tracking._runs.writer import RunPosition
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load, temporary_path
from pte_tracking._snapshots.selection import SelectedSnapshot, find_unlisted, is_run_of
from pte_tracking._snapshots.template import Template
from pte_tracking._store.checkpoint_files import checkpoint_digest, delete_checkpoint
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest

_T = TypeVar("_T")


def reopen_run(run: Run, state: Mapping[str, Any], selected: SelectedSnapshot | None) -> Checkpoint | None:
    """Open a run at the point of a snapshot.

    What became of snapshots after that point stays, though the point came before: a snapshot is announced when it is on
    the disk, after its point, and files that were pruned do not come back.

    Args:
        run: The run, not open yet.
        state: The snapshot's state.
        selected: Where it was found, if that is known.

    Returns:
        The snapshot in the record of the run, if it is known there.
    """
    position: RunPosition | None = state.get("run")
    if position is None:
        run.open(resume=True)
        return None
    before = {checkpoint.path: checkpoint for checkpoint in run.checkpoints()} if is_run_of(run, position) else None
    run.open(at=position, journal=None if selected is None else _find_journal(selected.path, run))
    after = {checkpoint.path: checkpoint for checkpoint in run.checkpoints()}
    for checkpoint in before.values() if before is not None else ():
        if checkpoint.step <= position["step"] and not _is_same_checkpoint(checkpoint, after.get(checkpoint.path)):
            run.log_checkpoint(
                checkpoint.path,
                checkpoint.step,
                checkpoint.sha256,
                checkpoint.size,
                checkpoint.epoch,
                checkpoint.values,
            )
    for path in after.keys() - before.keys() if before is not None else ():
        run.remove_checkpoint(path, after[path].step)
    name = None if selected is None else _register(run, selected)
    matching = [
        checkpoint
        for checkpoint in run.checkpoints()
        if checkpoint.step == position["step"] and name in (None, checkpoint.path)
    ]
    return matching[-1] if matching else None


def open_on_rank_zero(world: World, run: Run, open_run: Callable[[], _T]) -> _T:
    """Open a run on rank 0, and let all ranks know which it is.

    Args:
        world: The ranks.
        run: The run.
        open_run: Opens it.

    Returns:
        What ``open_run`` returned.
    """

    def open_and_describe() -> tuple[_T, Manifest]:
        return open_run(), run.manifest()

    opened, manifest = world.run_on_rank_zero("the opening of the run", open_and_describe)
    run.attach(manifest)
    return opened


def register_unlisted(run: Run, template: Template) -> None:
    """Announce the snapshots of a run that are on the disk, but whose announcement a kill has prevented."""
    for path in find_unlisted(run, [template]):
        with contextlib.suppress(SnapshotError):
            _register(run, SelectedSnapshot(path, load(path)))


def _find_journal(path: Path, run: Run) -> Path | None:
    """The journal that came with a snapshot from elsewhere."""
    journal = path.parent / JOURNAL
    return journal if journal.is_file() and path.parent != run.directory else None


def _register(run: Run, selected: SelectedSnapshot) -> str:
    """Make a snapshot one of this run's, where it is not: taken from elsewhere, or never announced.

    Returns:
        Its name in the run's directory.
    """
    if run.directory in selected.path.parents and selected.fetched_to is None:
        name = selected.path.relative_to(run.directory).as_posix()
    else:
        name = _copy_into_run(selected, run.directory)
    known_digests = [checkpoint.sha256 for checkpoint in run.checkpoints() if checkpoint.path == name]
    if selected.sha256 in known_digests:
        return name
    digest = checkpoint_digest(run.directory / name)
    if digest.sha256 not in known_digests:
        manager = selected.state["manager"]
        length = manager["iters_per_epoch"]
        epoch = manager["iteration"] / length if length else None
        run.log_checkpoint(
            name, selected.state["run"]["step"], digest.sha256, digest.size, epoch, selected.state.get("values")
        )
    return name


def _copy_into_run(selected: SelectedSnapshot, directory: Path) -> str:
    """Bring a snapshot from elsewhere into the run's directory, so that the next resume finds it there."""
    name = selected.path.name
    if (directory / name).exists():
        name += ".resumed"
    temporary = temporary_path(directory / name)
    delete_checkpoint(temporary)  # what a kill has left
    delete_checkpoint(directory / name)
    if selected.fetched_to is not None:
        os.replace(selected.path, directory / name)
        return name
    if selected.path.is_dir():
        shutil.copytree(selected.path, temporary)
    else:
        shutil.copyfile(selected.path, temporary)
    os.replace(temporary, directory / name)
    return name


def _is_same_checkpoint(first: Checkpoint, second: Checkpoint | None) -> bool:
    return second is not None and (first.path, first.step, first.sha256) == (second.path, second.step, second.sha256)
