"""Save and restore the complete training state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from torch import nn, optim

from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._distributed.world import World
from pte_tracking._engine.optimizer_options import OptimizerOptions
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.compatibility import FORMAT, check_compatible, check_format
from pte_tracking._snapshots.plain_state import to_plain
from pte_tracking._snapshots.rank_state import state_for_rank
from pte_tracking._snapshots.reopen import find_first_batches, open_on_rank_zero, reopen_run
from pte_tracking._snapshots.selection import SelectedSnapshot
from pte_tracking._snapshots.shards import reshard
from pte_tracking._store.events import Checkpoint


class StateObject(Protocol):
    """Object whose state is part of snapshots, such as a scheduler, a GradScaler, or an average of weights."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class TrainingState:
    """State of all parts of a training.

    Args:
        models: Models by name.
        optimizers: Optimizers by name.
        state_objects: Other objects with a state by name.
        options: Options of the optimizers that the script gives.
        extensions: The extensions and their triggers.
        progress: Progress of the training.
        stop: The stop condition.
        loaders: The data loaders and their positions.
        run: The run, opened when a state is loaded.
        world: The ranks.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, optim.Optimizer],
        state_objects: Mapping[str, StateObject],
        *,
        options: OptimizerOptions,
        extensions: ExtensionRegistry,
        progress: Progress,
        stop: StopCondition,
        loaders: LoaderRegistry,
        run: Run,
        world: World,
    ) -> None:
        self._models, self._optimizers = models, optimizers
        self._parts: dict[str, Mapping[str, Any]] = {
            "models": models,
            "optimizers": optimizers,
            "state_objects": state_objects,
        }
        self._options = options
        self._extensions = extensions
        self._progress = progress
        self._stop = stop
        self._loaders = loaders
        self._run = run
        self._world = world

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and plain values only.

        Raises:
            TypeError: If the state of a part contains anything else. The message names its position.
        """
        is_written = self._run.is_open and self._world.rank == 0
        state = {
            "format": FORMAT,
            **{part: _states(objects) for part, objects in self._parts.items()},
            "extensions": self._extensions.state_dict(),
            "manager": self._manager_state(),
            "rng": rng.get_state(),
            "run": self._run.position(self._progress.iteration) if is_written else None,
        }
        return cast(dict[str, Any], to_plain(state))

    def load_state_dict(self, state: Mapping[str, Any], selected: SelectedSnapshot | None = None) -> Checkpoint | None:
        """Restore a state and reopen its run.

        Args:
            state: The state.
            selected: Snapshot file that contains the state; None if unknown.

        Returns:
            The checkpoint of the snapshot; None if the run does not list it.

        Raises:
            ValueError: If the names of models, optimizers, extensions, or state objects differ. The message lists all
                differences, and nothing is restored. Extensions without a state may differ.
        """
        check_format(state)
        extensions = self._extensions.expected_names(state.get("extensions", {}))
        _check_names(state, {**self._parts, "extensions": extensions, "manager": self._manager_state()})
        check_compatible(self._models, self._optimizers, state)
        self._world.join()
        # Before the run is opened, which moves a fetched snapshot into the run directory.
        path = None if selected is None else selected.path
        local_state = reshard(state_for_rank(state, self._world), path, self._parts, self._world)
        checkpoint = open_on_rank_zero(
            self._world, self._run, lambda: None if self._run.is_open else reopen_run(self._run, state, selected)
        )
        for part, objects in self._parts.items():
            for name, item in objects.items():
                if hasattr(item, "load_state_dict"):  # The construction reported an optimizer without this method.
                    item.load_state_dict(local_state[part][name])
        self._extensions.load_state_dict(local_state["extensions"])
        manager_state = local_state["manager"]
        self._options.load_state_dict(manager_state["optimizer_options"])
        is_resized = manager_state["world_size"] != self._world.size
        self._progress.load_state_dict(manager_state)
        self._stop.load_state_dict(manager_state, self._progress)
        first_batches = find_first_batches(self._run, state, path) if self._world.rank == 0 else {}
        self._loaders.load_state_dict(manager_state["data"], local_state["rng"], is_resized, first_batches)
        return checkpoint

    def _manager_state(self) -> dict[str, Any]:
        return {
            **self._progress.state_dict(),
            **self._stop.state_dict(),
            "data": self._loaders.state_dict(),
            "optimizer_options": self._options.state_dict(),
            "world_size": self._world.size,
        }


def _states(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: item.state_dict() for name, item in objects.items()}


def _check_names(state: Mapping[str, Any], expected: Mapping[str, Iterable[str]]) -> None:
    """Check that a state has the expected parts and names, before anything is restored."""
    mismatches = [f"{part!r} is missing" for part in expected if part not in state]
    for part, names in expected.items():
        saved_names, expected_names = list(state.get(part, names)), list(names)
        if missing := [name for name in expected_names if name not in saved_names]:
            mismatches.append(f"{part}: missing {', '.join(map(repr, missing))}")
        if unexpected := [name for name in saved_names if name not in expected_names]:
            mismatches.append(f"{part}: unexpected {', '.join(map(repr, unexpected))}")
    if mismatches:
        raise ValueError(f"state: does not match this run: {'; '.join(mismatches)}")
