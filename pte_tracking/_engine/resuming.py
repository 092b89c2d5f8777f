"""Resume a training from a snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pte_tracking._distributed.world import World
from pte_tracking._engine.differences import AllowedDifferences
from pte_tracking._engine.resume_message import log_restart
from pte_tracking._engine.state import TrainingState
from pte_tracking._interface.extension import Extension
from pte_tracking._runs.run import Run
from pte_tracking._snapshots.reopen import open_on_rank_zero
from pte_tracking._snapshots.retention import BestPolicy
from pte_tracking._snapshots.selection import select_snapshot
from pte_tracking._store.events import Checkpoint
from pte_tracking.extensions.training_snapshot import TrainingSnapshot


def training_snapshots(extensions: Iterable[Extension]) -> list[TrainingSnapshot]:
    """Return the extensions that save the whole training."""
    return [extension for extension in extensions if isinstance(extension, TrainingSnapshot)]


def ranking(extensions: Iterable[Extension]) -> BestPolicy | None:
    """Return the ranking of the first extension with ``keep_best``, which decides which snapshot is the best.

    Args:
        extensions: The extensions of the training.
    """
    return next((snapshot.keep_best for snapshot in training_snapshots(extensions) if snapshot.keep_best), None)


def resume_training(
    source: str | os.PathLike[str],
    extensions: Iterable[Extension],
    state: TrainingState,
    run: Run,
    world: World,
    allowed: AllowedDifferences,
) -> Checkpoint | None:
    """Restore the snapshot of a source and rewind the run to it, or return the run to its start.

    Args:
        source: ``"latest"``, ``"best"``, a path, or the URI of a tracked checkpoint.
        extensions: The extensions of the training, whose snapshot extensions define file names and the best snapshot.
        state: The state to restore.
        run: The run to open.
        world: The ranks.
        allowed: Parts that may differ from the snapshot.

    Returns:
        The checkpoint that was restored; None if there is no snapshot.
    """
    snapshots = training_snapshots(extensions)
    templates = [snapshot.template for snapshot in snapshots]
    selected = select_snapshot(run, source, templates, ranking(snapshots), world)
    if selected is None:
        open_on_rank_zero(world, run, lambda: _restart(run))
        return None
    try:
        return state.load_state_dict(selected.state, selected, allowed)
    except BaseException:
        if world.rank == 0:
            selected.clean_up()
        raise


def _restart(run: Run) -> None:
    position = run.start_position()
    if position is not None:
        log_restart(run)
    run.open(at=position, resume=True)
