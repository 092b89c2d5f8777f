"""Saving and restoring the state of a training, the same in every front end."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn, optim

from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._distributed.world import World
from pte_tracking._engine.differences import STOP_TRIGGER, AllowedDifferences
from pte_tracking._engine.given_values import GivenValues
from pte_tracking._engine.lifecycle import Lifecycle
from pte_tracking._engine.optimizer_options import OptimizerOptions
from pte_tracking._engine.parts import StateObject, TrainingParts
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.resume_message import log_resume
from pte_tracking._engine.resuming import resume_training
from pte_tracking._engine.state import TrainingState
from pte_tracking._engine.training_progress import TrainingProgress
from pte_tracking._runs.run import Run
from pte_tracking._store.events import Checkpoint


class RestorableTraining(TrainingProgress):
    """Training whose complete state can be saved and restored.

    Attributes:
        run: Run of the training.
        world: Rank and world size.
    """

    run: Run
    world: World
    _extensions: ExtensionRegistry
    _given: GivenValues
    _lifecycle: Lifecycle
    models: Mapping[str, nn.Module]
    raw_models: Mapping[str, nn.Module]
    optimizers: Mapping[str, optim.Optimizer]
    loaders: LoaderRegistry
    _state: TrainingState
    #: What the first call of resume() or load_state_dict() did. None before it.
    _restored: str | None = None

    def _make_state(self, state_objects: Mapping[str, StateObject], options: OptimizerOptions) -> TrainingState:
        for name, item in state_objects.items():
            self._given.add(f"state_objects/{name}", item)
        self._given.add(STOP_TRIGGER, self._stop.trigger)

        def find_users() -> dict[str, Any]:
            return {**self._extensions.by_name(), **state_objects}

        state = TrainingState(
            TrainingParts(self.models, self.optimizers, state_objects, find_users),
            options=options,
            given=self._given,
            extensions=self._extensions,
            progress=self.updater,
            stop=self._stop,
            loaders=self.loaders,
            run=self.run,
            world=self.world,
            raw_models=self.raw_models,
        )
        self._lifecycle.before_training = state.begin_training
        self.run.before_close.append(state.report_unused)
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return the complete training state: tensors and plain values only.

        Raises:
            TypeError: If the state of a part contains anything else. The message names its position.
        """
        return self._state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, allow: Collection[str] = ()) -> None:
        """Restore a state and continue its run, before the first iteration.

        Args:
            state: The state, as returned by :meth:`state_dict` or loaded from a snapshot.
            allow: Names of parts that may differ from the snapshot; see :meth:`resume`. Defaults to none.

        Raises:
            RuntimeError: If the training has already started or ended.
            ValueError: If the names of models, optimizers, extensions, or state objects differ. The message lists all
                differences, and nothing is restored.
        """
        self._lifecycle.begin_restore("load_state_dict()")
        self._state.load_state_dict(state, allowed=AllowedDifferences(allow, self.world.rank))
        self._restored = f"of load_state_dict() restored iteration {self.iteration} of this training"

    def resume(self, source: str | os.PathLike[str] = "latest", *, allow: Collection[str] = ()) -> Checkpoint | None:
        """Restore a snapshot and continue its run, before the first iteration.

        Args:
            source: ``"latest"`` for the newest intact snapshot in the run directory, ``"best"`` for the best one by
                ``snapshot(keep_best=...)``, a path, also relative to the run directory, or the URI of a tracked
                checkpoint, such as ``"runs:/<run id>"`` or ``"models:/<model id>"`` for MLflow. Defaults to
                ``"latest"``.
            allow: Names of models, optimizers, extensions, and state objects that may differ from the snapshot. Those
                that are missing from it, do not fit, or refuse their state start as constructed. The arguments that the
                script gives to the others now replace those of the snapshot. Defaults to none.

        Returns:
            The checkpoint that was restored; None if there is no snapshot. Then the run restarts at its beginning.

        Raises:
            SnapshotError: If the snapshot is damaged or not a snapshot.
            LookupError: If the checkpoint does not exist.
            DirectoryInUseError: If another live process writes to the run directory.
            RuntimeError: If the training has already started or ended, or was resumed before.
            TypeError: If ``allow`` is not a list of strings.
            ValueError: If the snapshot belongs to another training, a part refuses its state, or ``allow`` contains an
                unknown name. Nothing is restored.
        """
        self._lifecycle.begin_restore("resume()")
        if self._restored is not None:
            raise RuntimeError(f"resume(): an earlier call {self._restored}. Call it once, with the source to use.")
        directory = self.run.directory if source in ("latest", "best") else None
        allowed = AllowedDifferences(allow, self.world.rank, directory=directory)
        checkpoint = resume_training(source, self._extensions, self._state, self.run, self.world, allowed)
        self._restored = (
            "found no snapshot, and started the run at iteration 0"
            if checkpoint is None and self.iteration == 0
            else f"restored iteration {self.iteration} of this training"
        )
        if checkpoint is not None and self.world.rank == 0:
            stop = self._stop.describe_stop(self.updater) if self._stop.should_stop else None
            log_resume(self, checkpoint, stop)
        return checkpoint
