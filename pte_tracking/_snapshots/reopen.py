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
    """Open a run at the journal position of a snapshot.

    The rewind supersedes all later events. Registrations and removals of earlier snapshots among them are written
    again: a snapshot is registered after the position that it stores, and pruned files no longer exist.

    Args:
        run: The run, which is not open yet.
        state: The state of the snapshot.
        selected: The selected snapshot. None if the state was passed to ``load_state_dict``.

    Returns:
        The checkpoint of the snapshot. None if the snapshot is not registered in the run.
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
    """Open a run on rank 0 and attach all ranks to it.

    Args:
        world: The ranks.
        run: The run.
        open_run: Opens the run. It is called on rank 0 only.

    Returns:
        The return value of ``open_run``, on every rank.
    """

    def open_and_describe() -> tuple[_T, Manifest]:
        return open_run(), run.manifest()

    opened, manifest = world.run_on_rank_zero("opening of the run", open_and_describe)
    run.attach(manifest)
    return opened


def register_unlisted(run: Run, template: Template) -> None:
    """Register snapshots that were published just before a crash. Damaged ones are ignored."""
    for path in find_unlisted(run, [template]):
        with contextlib.suppress(SnapshotError):
            _register(run, SelectedSnapshot(path, load(path)))


def _find_journal(path: Path, run: Run) -> Path | None:
    """Return the journal next to a snapshot outside the run directory, if there is one."""
    journal = path.parent / JOURNAL
    return journal if journal.is_file() and path.parent != run.directory else None


def _register(run: Run, selected: SelectedSnapshot) -> str:
    """Register a snapshot in a run unless it is registered. Copy it into the run directory if it is outside.

    Returns:
        The path of the snapshot, relative to the run directory.
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
    """Copy or move a snapshot into the run directory, so that the next resume finds it."""
    name = selected.path.name
    if (directory / name).exists():
        name += ".resumed"
    temporary = temporary_path(directory / name)
    delete_checkpoint(temporary)  # may remain after a crash
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
