"""Saves the training, or an object of it, as files in the run's directory."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

from pte_tracking._distributed.world import World
from pte_tracking._interface.extension import PRIORITY_SNAPSHOT, Extension, Manager, TriggerLike
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load, temporary_path
from pte_tracking._snapshots.job import ObjectSnapshotJob, SnapshotDetails, SnapshotJob, StateJob
from pte_tracking._snapshots.plain_state import to_plain
from pte_tracking._snapshots.reopen import register_unlisted
from pte_tracking._snapshots.retention import BestPolicy, Retention
from pte_tracking._snapshots.shards import has_shards, reshard
from pte_tracking._snapshots.signals import SignalFlag
from pte_tracking._snapshots.template import Template
from pte_tracking._snapshots.writer import SnapshotWriter
from pte_tracking._store.checkpoint_files import delete_checkpoint

_logger = logging.getLogger("pte_tracking")


class Stateful(Protocol):
    """Anything with a state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def snapshot(
    filename: str = "snapshot_iter_{.iteration}",
    *,
    target: Stateful | Mapping[str, Stateful] | None = None,
    trigger: TriggerLike = (1, "epoch"),
    condition: Callable[[], bool] | None = None,
    n_retains: int = -1,
    keep_best: Sequence[object] | None = None,
    autoload: bool = False,
    snapshot_on_error: bool = False,
    asynchronous: bool = True,
    on_signal: int | None = None,
) -> Extension:
    """Saves the whole training: models, optimizers, extensions, random state, the place in the data.

    A snapshot is taken when all other extensions have run and every trigger has decided about the iteration. It becomes
    a checkpoint of the run, with the values reported in its iteration, and :meth:`manager.resume` goes on from it as if
    the training had never stopped. ``torch.load(path)`` reads it anywhere; ``["models"]["main"]`` in it is a model's
    ``state_dict``.

    The training is held up while the state is copied; the file is written behind it. If the next snapshot is due before
    the last one is on the disk, the training waits. What goes wrong, on a full disk say, is logged, and the training
    goes on.

    Args:
        filename: The file's name in the run's directory, a format string for the manager.
        target: Save this object instead; see :func:`snapshot_object`.
        trigger: When.
        condition: Called without arguments when the trigger fires; no snapshot is taken if it returns False.
            Of several ranks, rank 0's answer counts.
        n_retains: How many of the newest files are kept. All if not positive; with ``keep_best``, the newest alone.
        keep_best: Keep these also: ``("val/loss", "min", 3)`` are the three with the lowest value. It is also what
            ``resume("best")`` looks at.
        autoload: Go on from the newest intact snapshot when the training begins, as :meth:`manager.resume` does.
        snapshot_on_error: Save the state in which an error left the training, too. No resume chooses it by itself.
        asynchronous: Write in another thread; needs memory for one more state.
        on_signal: When this signal comes (``signal.SIGTERM``), finish the iteration, save, and end the process with the
            exit status 128 + signal, as shells and schedulers expect of a killed job; the run is marked KILLED.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The file's name, the number of files, or the signal cannot be.
    """
    policy = SnapshotPolicy(trigger, condition, n_retains, autoload, snapshot_on_error, asynchronous)
    if target is None:
        return TrainingSnapshot(filename, policy, keep_best, on_signal)
    for name, given in {"keep_best": keep_best, "on_signal": on_signal}.items():
        if given is not None:
            raise ValueError(f"{name}: for snapshots of the whole training only, not together with target=")
    return ObjectSnapshot(filename, policy, target)


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


@dataclasses.dataclass(frozen=True)
class SnapshotPolicy:
    """When something is saved, and how long it is kept; see :func:`snapshot`."""

    trigger: TriggerLike
    condition: Callable[[], bool] | None
    n_retains: int
    autoload: bool
    on_error: bool
    asynchronous: bool

    def __post_init__(self) -> None:
        if self.condition is not None and not callable(self.condition):
            raise TypeError(f"condition: expected a function without arguments, got {self.condition!r}")
        if isinstance(self.n_retains, bool) or not isinstance(self.n_retains, int):
            raise TypeError(f"n_retains: expected a whole number, got {self.n_retains!r}")

    @property
    def is_met(self) -> bool:
        """Whether the condition, if there is one, holds."""
        return self.condition is None or bool(self.condition())


class Snapshot(Extension):
    """What snapshots of the training and of objects share."""

    priority = PRIORITY_SNAPSHOT

    def __init__(self, filename: str, policy: SnapshotPolicy) -> None:
        self.template = Template(filename)
        self.trigger = policy.trigger
        self.policy = policy
        self._writer = SnapshotWriter(policy.asynchronous)

    def initialize(self, manager: Manager) -> None:
        # A name or a state that cannot be is told now, not after the first epoch.
        self.template.format(manager)
        if has_shards(self.state(manager)):
            self._check_shards()
        if manager.world.rank:
            return
        manager.run.register_files(self.template.glob)
        for left_by_a_kill in manager.run.directory.glob(temporary_path(Path(self.template.glob)).as_posix()):
            delete_checkpoint(left_by_a_kill)

    def __call__(self, manager: Manager) -> None:
        # A save takes all ranks, so they have to agree; without a condition there is nothing to ask.
        if self.policy.condition is None or manager.world.broadcast_flag(self.policy.is_met):
            self.save(manager)

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        if self.policy.on_error and self.policy.is_met and manager.world.rank == 0:
            # Under a name of its own: the state may be that of half an iteration.
            path = manager.run.directory / f"{self.template.format(manager)}_on_error"
            manager.run.register_files(f"{self.template.glob}_on_error")
            self._writer.submit(StateJob(path, lambda: self.state(manager)))

    def finalize(self, manager: Manager) -> None:
        self._writer.wait()

    def _check_shards(self) -> None:
        if self.policy.on_error:
            raise ValueError(
                "snapshot_on_error: not with models in shards: the rank with the error cannot save the others' parts; "
                "take snapshots more often instead"
            )

    def state(self, manager: Manager) -> dict[str, Any]:
        """What is saved: a plain state."""
        raise NotImplementedError

    def save(self, manager: Manager) -> None:
        """Save it, and let go what is no longer to be kept."""
        raise NotImplementedError


class TrainingSnapshot(Snapshot):
    """Saves the whole training; see :func:`snapshot`."""

    default_name = "snapshot"

    def __init__(
        self, filename: str, policy: SnapshotPolicy, keep_best: Sequence[object] | None, on_signal: int | None
    ) -> None:
        super().__init__(filename, policy)
        self.keep_best = None if keep_best is None else BestPolicy.parse(keep_best)
        self._retention = Retention(self.template, policy.n_retains, self.keep_best)
        self._signal = None if on_signal is None else SignalFlag(on_signal)
        self._has_to_end = False

    def is_urgent(self, manager: Manager) -> bool:
        # A signal reaches the ranks in different iterations; all of them save in the same.
        self._has_to_end = self._signal is not None and manager.world.any_rank(self._signal.came)
        return self._has_to_end

    def initialize(self, manager: Manager) -> None:
        super().initialize(manager)
        if manager.world.rank == 0:
            # Where a kill prevented it:
            register_unlisted(manager.run, self.template)
            self._retention.prune(manager.run)
        if self._signal is not None:
            self._signal.install()

    def __call__(self, manager: Manager) -> None:
        if not self._has_to_end:
            super().__call__(manager)
            return
        assert self._signal is not None
        self.save(manager)
        self._writer.wait()
        # The launcher ends the others when the first has left, and rank 0 may still be writing.
        manager.world.all_gather("the last snapshot", None)
        raise SystemExit(self._signal.exit_status)

    def finalize(self, manager: Manager) -> None:
        super().finalize(manager)
        if self._signal is not None:
            self._signal.restore()
        mine = self._retention.own_checkpoints(manager.run)
        if self.keep_best is not None and mine and not self.keep_best.ranked(mine):
            _logger.warning(
                "snapshot: keep_best: none of %d snapshots has a finite value of %r; take them in the iterations that "
                "report it",
                len(mine),
                self.keep_best.key,
            )

    def _check_shards(self) -> None:
        super()._check_shards()
        if self.template.is_fixed:
            raise ValueError(
                f"filename: {self.template.glob!r} is always the same, but a folder of shards cannot take the place of "
                "another in one step; put {.iteration} into it, and give n_retains=1 to keep the newest alone"
            )

    def state(self, manager: Manager) -> dict[str, Any]:
        return manager.state_dict()

    def save(self, manager: Manager) -> None:
        self._writer.submit(
            SnapshotJob(
                manager.run,
                self.template.format(manager),
                lambda: self.state(manager),
                manager.models,
                SnapshotDetails(manager.iteration, _epochs(manager), dict(manager.observation)),
                self._retention,
                manager.world,
            )
        )


class ObjectSnapshot(Snapshot):
    """Saves one object; see :func:`snapshot_object`."""

    default_name = "snapshot_object"

    def __init__(self, filename: str, policy: SnapshotPolicy, target: Stateful | Mapping[str, Stateful]) -> None:
        super().__init__(filename, policy)
        for one in target.values() if isinstance(target, Mapping) else [target]:
            if not (hasattr(one, "state_dict") and hasattr(one, "load_state_dict")):
                raise TypeError(f"target: expected an object with state_dict() and load_state_dict(), got {one!r}")
        self._retention = Retention(self.template, policy.n_retains)
        self._target: Stateful = _Together(target) if isinstance(target, Mapping) else target

    def initialize(self, manager: Manager) -> None:
        super().initialize(manager)
        if self.policy.autoload:
            self._load_newest(manager.run.directory, manager.world)

    def state(self, manager: Manager) -> dict[str, Any]:
        return cast(dict[str, Any], to_plain(self._target.state_dict(), type(self._target).__name__))

    def save(self, manager: Manager) -> None:
        self._writer.submit(
            ObjectSnapshotJob(
                manager.run.directory,
                self.template.format(manager),
                lambda: self.state(manager),
                self._retention,
                manager.world,
            )
        )

    def _load_newest(self, directory: Path, world: World) -> None:
        state = world.run_on_rank_zero("the newest file of an object", lambda: self._newest(directory))
        if state is None:
            return
        fitting = reshard({"target": {"main": state}}, None, {"target": {"main": self._target}}, world)
        self._target.load_state_dict(fitting["target"]["main"])

    def _newest(self, directory: Path) -> dict[str, Any] | None:
        for name in reversed(self.template.list_files(directory)):
            try:
                return load(directory / name)
            except SnapshotError as error:
                _logger.warning("%s; an earlier one is looked for", error)
        return None


class _Together:
    """Several objects, saved as one."""

    def __init__(self, parts: Mapping[str, Stateful]) -> None:
        self._parts = parts

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])


def _epochs(manager: Manager) -> float | None:
    try:
        return manager.epoch_detail
    except RuntimeError:
        return None  # nobody has told how long one is
