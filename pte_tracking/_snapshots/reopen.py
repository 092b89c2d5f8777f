"""Reopen a run at a snapshot: rewind its journal and register the snapshot."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pte_tracking._distributed.world import World
from pte_tracking._platform.files import replace_file, sync_directory
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.run import Run
from pte_tracking._snapshots.candidate import SelectedSnapshot
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load, temporary_path
from pte_tracking._snapshots.selection import find_unlisted, is_run_of
from pte_tracking._snapshots.template import Template
from pte_tracking._store.checkpoint_files import checkpoint_digest, delete_checkpoint
from pte_tracking._store.events import Checkpoint, Number
from pte_tracking._store.files import sync_tree
from pte_tracking._store.first_batches import read_first_batches
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest

_T = TypeVar("_T")
_COMPARED_BYTES = 1 << 20


def reopen_run(run: Run, state: Mapping[str, Any], selected: SelectedSnapshot | None) -> Checkpoint | None:
    """Open a run at the journal position of a snapshot.

    A state of a run in another directory that was passed to ``load_state_dict`` starts a new run, a fork. A snapshot
    that was passed to ``resume()`` continues its run, also in another directory or on another machine.

    The first iteration rewinds the run, which supersedes all later events. Registrations and removals of earlier
    snapshots among them are then written again: a snapshot is registered after the position that it stores, and pruned
    files no longer exist.

    Args:
        run: The run, which is not open yet.
        state: The state of the snapshot.
        selected: The selected snapshot. None if the state was passed to ``load_state_dict``.

    Returns:
        The checkpoint of the snapshot. None if the snapshot is not registered in the run.
    """
    position: RunPosition | None = state.get("run")
    if position is None:
        if selected is not None:
            selected.clean_up()
        run.open(resume=True)
        return None
    is_own = is_run_of(run, position)
    if selected is None and not is_own:
        run.open(at=position, is_fork=True)
        return None
    before = run.checkpoints() if is_own else None
    adopted = None if selected is None else _AdoptedSnapshot.of(selected, run.directory)
    journal = None if selected is None else _find_journal(selected.path, run)
    if is_own and journal is not None:
        _check_history(run.directory / JOURNAL, journal, position)
    run.open(at=position, journal=journal)
    if before is not None:
        run.after_rewind.append(lambda: _restore_checkpoints(run, before, position["step"]))
    if adopted is not None:
        run.after_rewind.append(lambda: _register(run, adopted))
        run.before_close.append(adopted.clean_up)
    matching = [
        checkpoint
        for checkpoint in before or ()
        if checkpoint.step == position["step"] and (adopted is None or adopted.name == checkpoint.path)
    ]
    if matching:
        return matching[-1]
    return None if adopted is None else adopted.as_checkpoint()


def _restore_checkpoints(run: Run, before: Iterable[Checkpoint], step: int) -> None:
    """Write the registrations and removals of the snapshots before a step again, after the run was rewound."""
    after = {checkpoint.path: checkpoint for checkpoint in run.checkpoints()}
    paths = set()
    for checkpoint in before:
        paths.add(checkpoint.path)
        if checkpoint.step <= step and not _is_same_checkpoint(checkpoint, after.get(checkpoint.path)):
            run.log_checkpoint(
                checkpoint.path,
                checkpoint.step,
                checkpoint.sha256,
                checkpoint.size,
                checkpoint.epoch,
                checkpoint.values,
            )
    for path in after.keys() - paths:
        run.remove_checkpoint(path, after[path].step)


def find_first_batches(
    run: Run, state: Mapping[str, Any], path: Path | None
) -> dict[str, dict[str, tuple[str, int | None]]]:
    """Read the digests of the first batches after a snapshot, before the run is rewound.

    Args:
        run: The run.
        state: The state of the snapshot.
        path: Path of the snapshot. None if the state was passed to ``load_state_dict``.

    Returns:
        The digests by the name of the loader. Empty if the journal of the snapshot is not available, as in a fork.
    """
    position: RunPosition | None = state.get("run")
    if position is None:
        return {}
    journal = run.directory / JOURNAL if is_run_of(run, position) else path and _find_journal(path, run)
    if journal is None or not journal.is_file():
        return {}
    return read_first_batches(journal, position["position"])


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
    for path in find_unlisted(run, [template], warns=False):  # resume() has logged them.
        with contextlib.suppress(SnapshotError):
            _register(run, _AdoptedSnapshot.of(SelectedSnapshot(path, load(path)), run.directory))


class _AdoptedSnapshot(NamedTuple):
    """Selected snapshot without its state, which is registered in the run when the run is rewound.

    Attributes:
        path: Path of the snapshot.
        name: Path relative to the run directory, where the snapshot is or will be located.
        is_inside: Whether the snapshot is located in the run directory.
        fetched_to: See :class:`SelectedSnapshot`.
        sha256: See :class:`SelectedSnapshot`.
        step: Number of completed iterations.
        epoch: Number of completed epochs. None if the epoch length is not set.
        values: Latest reported values.
    """

    path: Path
    name: str
    is_inside: bool
    fetched_to: Path | None
    sha256: str | None
    step: int
    epoch: float | None
    values: dict[str, Number]

    @classmethod
    def of(cls, selected: SelectedSnapshot, directory: Path) -> _AdoptedSnapshot:
        """Return the description of a selected snapshot."""
        path, state = selected.path, selected.state
        is_inside = directory in path.parents and selected.fetched_to is None
        length = state["manager"]["iters_per_epoch"]
        return cls(
            path,
            path.relative_to(directory).as_posix() if is_inside else path.name,
            is_inside,
            selected.fetched_to,
            selected.sha256,
            state["run"]["step"],
            state["manager"]["iteration"] / length if length else None,
            dict(state.get("values") or {}),
        )

    def as_checkpoint(self) -> Checkpoint:
        """Return the checkpoint as which the snapshot will be registered."""
        digest = checkpoint_digest(self.path)
        values: Any = self.values
        return Checkpoint(0, time.time(), self.name, self.step, digest.sha256, digest.size, self.epoch, values)

    def clean_up(self) -> None:
        """Delete the temporary directory, if there is one."""
        if self.fetched_to is not None:
            shutil.rmtree(self.fetched_to, ignore_errors=True)


def _find_journal(path: Path, run: Run) -> Path | None:
    """Return the journal next to a snapshot outside the run directory, if there is one."""
    journal = path.parent / JOURNAL
    return journal if journal.is_file() and path.parent != run.directory else None


def _check_history(own: Path, other: Path, position: RunPosition) -> None:
    """Check that the journal of a fetched snapshot and that of the run directory are equal up to the snapshot.

    Raises:
        RuntimeError: If the run continued elsewhere after it left this directory.
    """
    remaining = position["position"]
    with open(own, "rb") as own_file, open(other, "rb") as other_file:
        while remaining > 0:
            size = min(remaining, _COMPARED_BYTES)
            chunk = own_file.read(size)
            if len(chunk) < size or chunk != other_file.read(size):
                raise RuntimeError(
                    f"{own.parent}: the snapshot of step {position['step']} belongs to a later part of this run, which "
                    "another directory or machine recorded. Move this directory, and resume in an empty one."
                )
            remaining -= size


def _register(run: Run, adopted: _AdoptedSnapshot) -> None:
    """Register a snapshot in a run unless it is registered. Copy it into the run directory if it is outside."""
    name = adopted.name if adopted.is_inside else _copy_into_run(adopted, run.directory)
    known_digests = [checkpoint.sha256 for checkpoint in run.checkpoints() if checkpoint.path == name]
    if adopted.sha256 in known_digests:
        return
    digest = checkpoint_digest(run.directory / name)
    if digest.sha256 not in known_digests:
        run.log_checkpoint(name, adopted.step, digest.sha256, digest.size, adopted.epoch, adopted.values)


def _copy_into_run(adopted: _AdoptedSnapshot, directory: Path) -> str:
    """Copy or move a snapshot into the run directory, so that the next resume finds it."""
    name = adopted.name
    if (directory / name).exists():
        name += ".resumed"
    temporary = temporary_path(directory / name)
    delete_checkpoint(temporary)  # may remain after a crash
    delete_checkpoint(directory / name)
    if adopted.fetched_to is not None:
        replace_file(adopted.path, temporary)
        adopted.clean_up()
    elif adopted.path.is_dir():
        shutil.copytree(adopted.path, temporary)
    else:
        shutil.copyfile(adopted.path, temporary)
    sync_tree(temporary)  # the copy is registered, so it has to survive a loss of power
    replace_file(temporary, directory / name)
    sync_directory(directory)
    return name


def _is_same_checkpoint(first: Checkpoint, second: Checkpoint | None) -> bool:
    return second is not None and (first.path, first.step, first.sha256) == (second.path, second.step, second.sha256)
