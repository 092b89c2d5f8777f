"""The state of a whole training: taken, and given back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from torch import nn, optim

from pte_tracking._data.loader import LoaderRegistry
from pte_tracking._distributed.world import World
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.compatibility import FORMAT, check_compatible, check_format
from pte_tracking._snapshots.plain_state import to_plain
from pte_tracking._snapshots.rank_state import state_for_rank
from pte_tracking._snapshots.reopen import open_on_rank_zero, reopen_run
from pte_tracking._snapshots.selection import SelectedSnapshot
from pte_tracking._snapshots.shards import reshard
from pte_tracking._store.events import Checkpoint


class StateObject(Protocol):
    """Anything whose state belongs into snapshots: a scheduler, a GradScaler, an average of weights."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class TrainingState:
    """Takes the state of everything that a training consists of, and gives it back.

    Args:
        models: The models by name.
        optimizers: The optimizers by name.
        state_objects: Whatever else has a state, by name.
        extensions: The extensions.
        progress: How far the training is.
        stop: Whether it is over.
        loaders: Where in the data it is.
        run: The record of it.
        world: The processes that train together.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, optim.Optimizer],
        state_objects: Mapping[str, StateObject],
        *,
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
        self._extensions = extensions
        self._progress = progress
        self._stop = stop
        self._loaders = loaders
        self._run = run
        self._world = world

    def state_dict(self) -> dict[str, Any]:
        """The state: tensors and plain values only.

        Raises:
            TypeError: Something else is in the state of a part; its place is named.
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
        """Restores a state, in the run that it was taken in.

        Args:
            state: The state.
            selected: Where it was found, if that is known.

        Returns:
            The snapshot in the record of the run, if it is known there.

        Raises:
            ValueError: It is that of other models, optimizers, extensions or state objects: each is named, and nothing
                was restored. An extension without a state may have come since, or gone.
        """
        check_format(state)
        extensions = self._extensions.expected_names(state.get("extensions", {}))
        _check_names(state, {**self._parts, "extensions": extensions, "manager": self._manager_state()})
        check_compatible(self._models, self._optimizers, state)
        self._world.join()
        # Before the run is opened: what was fetched has its place in the run's directory from then on.
        path = None if selected is None else selected.path
        local_state = reshard(state_for_rank(state, self._world), path, self._parts, self._world)
        checkpoint = open_on_rank_zero(
            self._world, self._run, lambda: None if self._run.is_open else reopen_run(self._run, state, selected)
        )
        for part, objects in self._parts.items():
            for name, item in objects.items():
                item.load_state_dict(local_state[part][name])
        self._extensions.load_state_dict(local_state["extensions"])
        manager_state = local_state["manager"]
        is_resized = manager_state["world_size"] != self._world.size
        self._progress.load_state_dict(manager_state, is_resized)
        self._stop.load_state_dict(manager_state, self._progress)
        self._loaders.load_state_dict(manager_state["data"], local_state["rng"], is_resized)
        return checkpoint

    def _manager_state(self) -> dict[str, Any]:
        return {
            **self._progress.state_dict(),
            **self._stop.state_dict(),
            "data": self._loaders.state_dict(),
            "world_size": self._world.size,
        }


def _states(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: item.state_dict() for name, item in objects.items()}


def _check_names(state: Mapping[str, Any], expected: Mapping[str, Iterable[str]]) -> None:
    """Checks that a state has the parts and names that are wanted, before anything of it is restored."""
    mismatches = [f"{part!r} is missing" for part in expected if part not in state]
    for part, names in expected.items():
        saved_names, expected_names = list(state.get(part, names)), list(names)
        if missing := [name for name in expected_names if name not in saved_names]:
            mismatches.append(f"{part}: missing {', '.join(map(repr, missing))}")
        if unexpected := [name for name in saved_names if name not in expected_names]:
            mismatches.append(f"{part}: unexpected {', '.join(map(repr, unexpected))}")
    if mismatches:
        raise ValueError(f"state: it is that of another training: {'; '.join(mismatches)}")
