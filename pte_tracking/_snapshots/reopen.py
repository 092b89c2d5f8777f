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


def reopen_run(run: Run, state: Mapping[str, Any], found: SelectedSnapshot | None) -> Checkpoint | None:
    """Open a run at the point of a snapshot.

    What became of snapshots after that point stays, though the point came before: a snapshot is announced when it is on
    the disk, after its point, and files that were pruned do not come back.

    Args:
        run: The run, not open yet.
        state: The snapshot's state.
        found: Where it was found, if that is known.

    Returns:
        The snapshot in the record of the run, if it is known there.
    """
    point: RunPosition | None = state.get("run")
    if point is None:
        run.open(resume=True)
        return None
    before = {one.path: one for one in run.checkpoints()} if is_run_of(run, point) else None
    run.open(at=point, journal=None if found is None else _find_journal(found.path, run))
    after = {one.path: one for one in run.checkpoints()}
    for one in before.values() if before is not None else ():
        if one.step <= point["step"] and not _is_same(one, after.get(one.path)):
            run.log_checkpoint(one.path, one.step, one.sha256, one.size, one.epoch, one.values)
    for path in after.keys() - before.keys() if before is not None else ():
        run.remove_checkpoint(path, after[path].step)
    name = None if found is None else _register(run, found)
    here = [one for one in run.checkpoints() if one.step == point["step"] and name in (None, one.path)]
    return here[-1] if here else None


def open_on_rank_zero(world: World, run: Run, opening: Callable[[], _T]) -> _T:
    """Open a run on rank 0, and let all ranks know which it is.

    Args:
        world: The ranks.
        run: The run.
        opening: Opens it.

    Returns:
        What ``opening`` returned.
    """

    def open_here() -> tuple[_T, Manifest]:
        return opening(), run.manifest()

    opened, manifest = world.run_on_rank_zero("the opening of the run", open_here)
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


def _register(run: Run, found: SelectedSnapshot) -> str:
    """Make a snapshot one of this run's, where it is not: taken from elsewhere, or never announced.

    Returns:
        Its name in the run's directory.
    """
    if run.directory in found.path.parents and found.fetched_to is None:
        name = found.path.relative_to(run.directory).as_posix()
    else:
        name = _copy_into_run(found, run.directory)
    known = [one.sha256 for one in run.checkpoints() if one.path == name]
    if found.sha256 in known:
        return name
    written = checkpoint_digest(run.directory / name)
    if written.sha256 not in known:
        manager = found.state["manager"]
        length = manager["iters_per_epoch"]
        epoch = manager["iteration"] / length if length else None
        run.log_checkpoint(
            name, found.state["run"]["step"], written.sha256, written.size, epoch, found.state.get("values")
        )
    return name


def _copy_into_run(found: SelectedSnapshot, directory: Path) -> str:
    """Bring a snapshot from elsewhere into the run's directory, so that the next resume finds it there."""
    name = found.path.name
    if (directory / name).exists():
        name += ".resumed"
    temporary = temporary_path(directory / name)
    delete_checkpoint(temporary)  # what a kill has left
    delete_checkpoint(directory / name)
    if found.fetched_to is not None:
        os.replace(found.path, directory / name)
        return name
    if found.path.is_dir():
        shutil.copytree(found.path, temporary)
    else:
        shutil.copyfile(found.path, temporary)
    os.replace(temporary, directory / name)
    return name


def _is_same(one: Checkpoint, other: Checkpoint | None) -> bool:
    return other is not None and (one.path, one.step, one.sha256) == (other.path, other.step, other.sha256)
