"""Base class of extensions that take snapshots."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from pte_tracking._interface.extension import PRIORITY_SNAPSHOT, Extension, Manager
from pte_tracking._snapshots.file import temporary_path
from pte_tracking._snapshots.job import StateJob
from pte_tracking._snapshots.object_state import needs_all_ranks
from pte_tracking._snapshots.shards import has_shards
from pte_tracking._snapshots.template import Template
from pte_tracking._snapshots.writer import SnapshotWriter
from pte_tracking._store.checkpoint_files import delete_checkpoint
from pte_tracking.extensions._snapshot_policy import SnapshotPolicy
from pte_tracking.triggers import get_trigger


class SnapshotExtension(Extension):
    """Base class of the extensions that save the training or an object.

    Args:
        filename: Format string for the file name in the run directory.
        policy: Shared options.
    """

    priority = PRIORITY_SNAPSHOT
    saves_state = True

    def __init__(self, filename: str, policy: SnapshotPolicy) -> None:
        self.template = Template(filename)
        get_trigger(policy.trigger)  # An invalid trigger is reported here and not when the extension is registered.
        self.trigger = policy.trigger
        self.policy = policy
        self._writer = SnapshotWriter(policy.asynchronous)

    def initialize(self, manager: Manager) -> None:
        # An invalid name or state raises an error now, not after the first epoch.
        self.template.format(manager)
        if has_shards(self.get_state(manager)) or needs_all_ranks(manager.models, manager.optimizers, manager.world):
            self._check_on_error()
        if manager.world.rank:
            return
        manager.run.register_files(self.template.glob, is_written=self.policy.autoload)
        for stale_path in manager.run.directory.glob(temporary_path(Path(self.template.glob)).as_posix()):
            delete_checkpoint(stale_path)

    def __call__(self, manager: Manager) -> None:
        self.save_if_allowed(manager)

    def save_if_allowed(self, manager: Manager) -> None:
        """Save the state if the condition is true on rank 0. Call this on every rank.

        Args:
            manager: The manager.
        """
        # All ranks save together, so rank 0 decides about the condition.
        if self.policy.condition is None or manager.world.broadcast_flag(self.policy.is_condition_met):
            self.save(manager)

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        if self.policy.on_error and self.policy.is_condition_met and manager.world.rank == 0:
            # The state may be that of an incomplete iteration, so resume() must not find it under a regular name.
            path = manager.run.directory / f"{self.template.format(manager)}_on_error"
            manager.run.register_files(f"{self.template.glob}_on_error")
            self._writer.submit(StateJob(path, lambda: self.get_state(manager)))

    def finalize(self, manager: Manager) -> None:
        self._writer.wait()

    def _check_on_error(self) -> None:
        if self.policy.on_error:
            raise ValueError(
                "snapshot_on_error: not supported with sharded models and optimizers, because the rank with the error "
                "cannot save the shards of other ranks. Take snapshots more often instead."
            )

    def get_state(self, manager: Manager) -> dict[str, Any]:
        """Return the plain state to save on this rank."""
        raise NotImplementedError

    def save(self, manager: Manager) -> None:
        """Save the state and apply retention. Call this on every rank."""
        raise NotImplementedError
