"""Snapshots of an object."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol, cast

from pte_tracking._distributed.world import World
from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._interface.other_names import NO_WRITERS, refuse_names
from pte_tracking._runs.run import Run
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.job import ObjectSnapshotJob
from pte_tracking._snapshots.plain_state import to_plain
from pte_tracking._snapshots.retention import Retention
from pte_tracking._snapshots.save_failure import named_failure
from pte_tracking._snapshots.shards import reshard
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.effective_files import list_artifacts
from pte_tracking.extensions._snapshot_base import SnapshotExtension
from pte_tracking.extensions._snapshot_policy import SnapshotPolicy

_logger = logging.getLogger("pte_tracking")


class Stateful(Protocol):
    """Object with a state, such as a module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@refuse_names(
    savefun="Snapshots are written in the format of torch.save.",
    writer=NO_WRITERS,
    saver_rank="Rank 0 writes.",
)
@refuse_unknown()
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
    artifact: bool = False,
) -> Extension:
    """Save the ``state_dict`` of an object, such as a model.

    The file contains only this state. It is not a checkpoint of the run, and a training cannot be resumed from it.

    Args:
        target: Object with ``state_dict`` and ``load_state_dict``, or a mapping of such objects. The file of a mapping
            contains the states by name.
        filename: Name of the file in the run directory: a format string with numeric attributes of the manager.
        trigger: When to save. Defaults to ``(1, "epoch")``, after each epoch.
        condition: Called without arguments when the trigger fires. Nothing is saved if it returns False. In distributed
            training, the result on rank 0 decides. Defaults to no condition.
        n_retains: Number of newest files to keep. All are kept if it is not positive. Defaults to -1.
        autoload: Whether to load the newest file, by the numbers in the names, into ``target`` when the training
            starts. Defaults to False.
        snapshot_on_error: Whether to save the state after an error in addition, as a file that ends in ``_on_error``.
            Defaults to False.
        asynchronous: Whether to write in a separate thread, which needs memory for one more state. Defaults to True.
        artifact: Whether each file is an artifact of the run, which backends store. A file that ``n_retains`` deletes
            stays in them, but only if it was delivered before. Defaults to False.

    Returns:
        The extension.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the file name is invalid.

    Example:
        >>> import os, tempfile
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model, out_dir = torch.nn.Linear(2, 1), tempfile.mkdtemp()
        >>> saved = extensions.snapshot_object(model, "model_{.iteration}")
        >>> manager = pte.ExtensionsManager(model, 1, [saved], out_dir=out_dir, iters_per_epoch=2, sinks=[])
        >>> for batch in manager.batches([1, 2]):
        ...     with manager.run_iteration():
        ...         pass
        >>> sorted(torch.load(os.path.join(out_dir, "model_2")))
        ['bias', 'weight']
    """
    return ObjectSnapshot(
        filename,
        SnapshotPolicy(trigger, condition, n_retains, autoload, snapshot_on_error, asynchronous),
        target,
        is_artifact=artifact,
    )


class ObjectSnapshot(SnapshotExtension):
    """Extension that saves an object; see :func:`snapshot_object`.

    Args:
        filename: Format string for the file name.
        policy: Shared options.
        target: Object to save, or a mapping of objects.
        is_artifact: Whether each file is an artifact of the run. Defaults to False.
    """

    default_name = "snapshot_object"

    def __init__(
        self,
        filename: str,
        policy: SnapshotPolicy,
        target: Stateful | Mapping[str, Stateful],
        *,
        is_artifact: bool = False,
    ) -> None:
        super().__init__(filename, policy)
        self._is_artifact = is_artifact
        for part in target.values() if isinstance(target, Mapping) else [target]:
            has_state = hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
            if not has_state or isinstance(part, type):
                raise TypeError(f"target: expected an object with state_dict() and load_state_dict(), got {part!r}")
        self._retention = Retention(self.template, policy.n_retains)
        self._target: Stateful = _ObjectGroup(target) if isinstance(target, Mapping) else target

    def initialize(self, manager: Manager) -> None:
        super().initialize(manager)
        if self.policy.autoload:
            self._load_newest(manager.run.directory, manager.world)
        if self._is_artifact and manager.world.rank == 0:
            self._log_unlisted(manager.run)

    def get_state(self, manager: Manager) -> dict[str, Any]:
        is_group = isinstance(self._target, _ObjectGroup)  # which names the object itself
        with contextlib.nullcontext() if is_group else named_failure("the object of snapshot_object()", self._target):
            state = self._target.state_dict()
        return cast(dict[str, Any], to_plain(state, type(self._target).__name__))

    def save(self, manager: Manager) -> None:
        self._writer.submit(
            ObjectSnapshotJob(
                manager.run.directory,
                self.template.format(manager),
                lambda: self.get_state(manager),
                self._retention,
                manager.world,
                manager.run if self._is_artifact else None,
            )
        )

    def _log_unlisted(self, run: Run) -> None:
        """Log files that were written just before a crash, or whose events a rewind superseded."""
        known = {event.path for event in list_artifacts(run.directory)}
        for name in self.template.list_files(run.directory):
            if name not in known:
                run.log_artifact(run.directory / name, PurePath(name).parent.as_posix().removeprefix("."))

    def _load_newest(self, directory: Path, world: World) -> None:
        state = world.run_on_rank_zero("loading of an object", lambda: self._newest(directory))
        if state is None:
            return
        fitted = reshard({"target": {"main": state}}, None, {"target": {"main": self._target}}, world)
        self._target.load_state_dict(fitted["target"]["main"])

    def _newest(self, directory: Path) -> dict[str, Any] | None:
        for name in reversed(self.template.list_files(directory)):
            try:
                return load(directory / name)
            except SnapshotError as error:
                _logger.warning("autoload: skipping unusable file: %s", error)
        return None


class _ObjectGroup:
    """Several objects with one state."""

    def __init__(self, parts: Mapping[str, Stateful]) -> None:
        self._parts = parts

    def state_dict(self) -> dict[str, Any]:
        states = {}
        for name, part in self._parts.items():
            with named_failure(f"the object {name!r} of snapshot_object()", part):
                states[name] = part.state_dict()
        return states

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
