"""Save and restore the complete training state."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._distributed.world import World
from pte_tracking._engine.differences import STOP_TRIGGER, AllowedDifferences
from pte_tracking._engine.environment import describe_environment, report_differences
from pte_tracking._engine.given_values import GivenValues
from pte_tracking._engine.optimizer_options import OptimizerOptions
from pte_tracking._engine.parameter_state import ParameterState
from pte_tracking._engine.parts import TrainingParts
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.snapshot_checks import check_classes, check_names
from pte_tracking._engine.state_matching import rename_extensions
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.candidate import SelectedSnapshot
from pte_tracking._snapshots.compatibility import FORMAT, check_format
from pte_tracking._snapshots.earlier_state import keep_attributes
from pte_tracking._snapshots.plain_state import map_tensors, to_plain
from pte_tracking._snapshots.rank_state import state_for_rank
from pte_tracking._snapshots.reopen import find_first_batches, open_on_rank_zero, reopen_run
from pte_tracking._snapshots.shards import reshard
from pte_tracking._store.events import Checkpoint

_logger = logging.getLogger("pte_tracking")


class TrainingState:
    """State of all parts of a training.

    Args:
        parts: Models, optimizers, and state objects.
        options: Options of the optimizers that the script gives.
        given: Arguments of the other objects that the script gives.
        extensions: The extensions and their triggers.
        progress: Progress of the training.
        stop: The stop condition.
        loaders: The data loaders and their positions.
        run: The run, opened when a state is loaded.
        world: The ranks.
        raw_models: The models as passed to the manager, which may be wrapped.
    """

    def __init__(
        self,
        parts: TrainingParts,
        *,
        options: OptimizerOptions,
        given: GivenValues,
        extensions: ExtensionRegistry,
        progress: Progress,
        stop: StopCondition,
        loaders: LoaderRegistry,
        run: Run,
        world: World,
        raw_models: Mapping[str, object],
    ) -> None:
        self._parts = parts
        self._parameters = ParameterState(parts, raw_models, world.rank)
        self._options = options
        self._given = given
        self._extensions = extensions
        self._progress = progress
        self._stop = stop
        self._loaders = loaders
        self._run = run
        self._world = world
        self._position = _position_of_user()

    def begin_training(self) -> None:
        """Note the state that the script gives, before the first iteration."""
        self._parameters.begin_training(lambda: self._progress.iteration)

    def report_unused(self) -> None:
        """Log a warning if the run ends before the first iteration, although the loop has trained the models."""
        if self._stop.should_stop or self._world.rank or sys.exc_info()[1] or self._run.uncaught_error:
            return
        if types := self._parameters.stepped_before_training():
            _logger.warning(
                "%s: the manager created at %s ended without an iteration since its start, although the loop stepped "
                "%s, so it recorded nothing. Iterate over manager.iterations(loader), or write 'with "
                "manager.run_iteration():' around each update. If another manager trains, do not create this one.",
                *(self._run.directory, self._position, ", ".join(types)),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and plain values only.

        Raises:
            RuntimeError: If a part fails to return its state. The message names the part.
            TypeError: If the state of a part contains anything else. The message names its position.
        """
        is_written = self._run.is_open and self._world.rank == 0
        parts, parameters = self._parts.state_dict(), self._parameters.state_dict()
        state = {
            "format": FORMAT,
            **parts,
            "gradients": parameters["gradients"],
            "parameters": {**parts["parameters"], **parameters["parameters"]},
            "extensions": self._extensions.state_dict(),
            "environment": self._environment(),
            "given": {**self._given.state_dict(), **self._extensions.base_names()},
            "manager": self._manager_state(),
            "rng": rng.get_state(),
            "run": self._run.position(self._progress.iteration) if is_written else None,
        }
        return cast(dict[str, Any], to_plain(state))

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        selected: SelectedSnapshot | None = None,
        allowed: AllowedDifferences | None = None,
    ) -> Checkpoint | None:
        """Restore a state and reopen its run.

        Args:
            state: The state.
            selected: Snapshot file that contains the state; None if unknown.
            allowed: Parts that may differ. Defaults to none.

        Returns:
            The checkpoint of the snapshot; None if the run does not list it.

        Raises:
            ValueError: If the names of models, optimizers, extensions, or state objects differ, or a part refuses its
                state. Nothing is restored.
        """
        check_format(state)
        if selected is None:
            # Optimizers keep the tensors that they load. Those of the caller may belong to another training.
            state = map_tensors(dict(state), lambda tensor, _: tensor.clone())
        allowed = AllowedDifferences() if allowed is None else allowed
        names = self._extensions.match_state(state.get("extensions", {}), state.get("given", {}))
        self._world.join()
        self._world.run_on_all_ranks(
            "the checks of a snapshot", lambda: self._check(rename_extensions(state, names), allowed)
        )
        # Before the run is opened, which moves a fetched snapshot into the run directory.
        path = None if selected is None else selected.path
        objects = {**self._parts.by_kind, "gradients": self._parameters.by_optimizer()}
        local_state = self._parts.arrange(state_for_rank(state, self._world), allowed)
        local_state = rename_extensions(reshard(local_state, path, objects, self._world), names)
        local_state = self._parts.arrange_users(local_state, state, allowed)
        with contextlib.ExitStack() as undo:
            self._world.run_on_all_ranks(
                "the restore of a snapshot", lambda: self._load_reversible(local_state, undo, allowed, path)
            )
            checkpoint = open_on_rank_zero(
                self._world, self._run, lambda: None if self._run.is_open else reopen_run(self._run, state, selected)
            )
            undo.pop_all()
        self._parts.load_checked(local_state, allowed)
        self._parameters.load_state_dict(local_state)
        self._options.load_state_dict(local_state["manager"]["optimizer_options"])
        self._given.load_state_dict(local_state.get("given", {}), allowed)
        if self._world.rank == 0:
            report_differences(state.get("environment", {}), self._environment())
        return checkpoint

    def _check(self, state: Mapping[str, Any], allowed: AllowedDifferences) -> None:
        extensions = state.get("extensions", {})
        expected = {
            **self._parts.by_kind,
            "extensions": self._extensions.expected_names(extensions),
            "manager": self._manager_state(),
        }
        kinds = [kind for kind in expected if kind != "manager"]
        allowed.check_names(name for kind in kinds for name in (*expected[kind], *state.get(kind, ())))
        unnamed = {kind: state.get(kind, ()) for kind in ("gradients", "parameters")}
        check_names(state, {**expected, **unnamed}, allowed)
        stateless = {f"extensions/{name}" for name, saved in extensions.items() if not saved["extension"]}
        stateless |= {f"triggers/{name}" for name, saved in extensions.items() if not saved["trigger"]}
        if not state["manager"]["stop_trigger"]:
            stateless.add(STOP_TRIGGER)
        differences = self._given.class_differences(state.get("given", {}))
        check_classes((item for item in differences if item[0] not in stateless), allowed)
        self._parts.check(state, allowed)

    def _load_reversible(
        self, state: Mapping[str, Any], undo: contextlib.ExitStack, allowed: AllowedDifferences, path: Path | None
    ) -> None:
        """Restore all parts that may refuse their state, or that do not take a copy to return to the earlier one."""
        random_state = rng.get_state()
        undo.callback(rng.set_state, random_state)
        for item in (self._progress, self._stop, self._loaders):
            keep_attributes(item, undo)
        undo.callback(self._loaders.load_state_dict, self._loaders.state_dict(), random_state)
        manager_state = state["manager"]
        is_resized = manager_state["world_size"] != self._world.size
        self._extensions.load_state_dict(state["extensions"], undo, allowed)
        self._progress.load_state_dict(manager_state)
        self._stop.load_state_dict(manager_state, self._progress, undo, allowed)
        self._parts.load_reversible(state, undo, allowed)
        first_batches = find_first_batches(self._run, state, path) if self._world.rank == 0 else {}
        self._loaders.load_state_dict(manager_state["data"], state["rng"], is_resized, first_batches)

    def _environment(self) -> dict[str, str]:
        trees = self._parts.model_trees.values()
        return describe_environment([[item for _, item in tree.parameters] for tree in trees], self._world)

    def _manager_state(self) -> dict[str, Any]:
        return {
            **self._progress.state_dict(),
            **self._stop.state_dict(),
            "data": self._loaders.state_dict(),
            "optimizer_options": self._options.state_dict(),
            "world_size": self._world.size,
        }


def _position_of_user() -> str:
    """Return the file and the line from which the user called the library, such as ``train.py:12``."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pte_tracking."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
