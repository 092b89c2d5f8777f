"""Snapshots of one object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from pte_tracking._distributed.world import World
from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.job import ObjectSnapshotJob
from pte_tracking._snapshots.plain_state import to_plain
from pte_tracking._snapshots.retention import Retention
from pte_tracking._snapshots.shards import reshard
from pte_tracking.extensions._snapshot_base import SnapshotExtension
from pte_tracking.extensions._snapshot_policy import SnapshotPolicy

_logger = logging.getLogger("pte_tracking")


class Stateful(Protocol):
    """Anything with a state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def snapshot_object(
    target: Stateful | Mapping[str, Stateful],
    filename: str,
    *,
    trigger: TriggerLike = (1, "epoch"),
    condition: Callable[[], bool] | None = None,
    n_retains: int = -1,
    autoload: bool = False,
    snapshot_on_error: bool = False,
    asynchronous: bool = True,
) -> Extension:
    """Saves the ``state_dict`` of one object, such as a model; the file holds that and nothing else.

    It is no checkpoint of the run: nothing can be resumed from it.

    Args:
        target: The object; or several by name, whose states the file holds under these names.
        filename: The file's name in the run's directory, a format string for the manager.
        trigger: When.
        condition: Called without arguments when the trigger fires; nothing is saved if it returns False.
            Of several ranks, rank 0's answer counts.
        n_retains: How many of the newest files are kept; all if not positive.
        autoload: Load the newest file, by the numbers in the names, into ``target`` when the training begins.
        snapshot_on_error: Save the state in which an error left it, too.
        asynchronous: Write in another thread; needs memory for one more state.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The file's name or the number of files cannot be.
    """
    return ObjectSnapshot(
        filename, SnapshotPolicy(trigger, condition, n_retains, autoload, snapshot_on_error, asynchronous), target
    )


class ObjectSnapshot(SnapshotExtension):
    """Saves one object; see :func:`snapshot_object`."""

    default_name = "snapshot_object"

    def __init__(self, filename: str, policy: SnapshotPolicy, target: Stateful | Mapping[str, Stateful]) -> None:
        super().__init__(filename, policy)
        for part in target.values() if isinstance(target, Mapping) else [target]:
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise TypeError(f"target: expected an object with state_dict() and load_state_dict(), got {part!r}")
        self._retention = Retention(self.template, policy.n_retains)
        self._target: Stateful = _ObjectGroup(target) if isinstance(target, Mapping) else target

    def initialize(self, manager: Manager) -> None:
        super().initialize(manager)
        if self.policy.autoload:
            self._load_newest(manager.run.directory, manager.world)

    def get_state(self, manager: Manager) -> dict[str, Any]:
        return cast(dict[str, Any], to_plain(self._target.state_dict(), type(self._target).__name__))

    def save(self, manager: Manager) -> None:
        self._writer.submit(
            ObjectSnapshotJob(
                manager.run.directory,
                self.template.format(manager),
                lambda: self.get_state(manager),
                self._retention,
                manager.world,
            )
        )

    def _load_newest(self, directory: Path, world: World) -> None:
        state = world.run_on_rank_zero("the newest file of an object", lambda: self._newest(directory))
        if state is None:
            return
        fitted = reshard({"target": {"main": state}}, None, {"target": {"main": self._target}}, world)
        self._target.load_state_dict(fitted["target"]["main"])

    def _newest(self, directory: Path) -> dict[str, Any] | None:
        for name in reversed(self.template.list_files(directory)):
            try:
                return load(directory / name)
            except SnapshotError as error:
                _logger.warning("%s; an earlier one is looked for", error)
        return None


class _ObjectGroup:
    """Several objects, saved as one."""

    def __init__(self, parts: Mapping[str, Stateful]) -> None:
        self._parts = parts

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
