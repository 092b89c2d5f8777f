"""Snapshots of the whole training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._snapshots.job import SnapshotDetails, SnapshotJob
from pte_tracking._snapshots.reopen import register_unlisted
from pte_tracking._snapshots.retention import BestPolicy, Retention
from pte_tracking._snapshots.signals import SignalFlag
from pte_tracking.extensions._snapshot_base import SnapshotExtension
from pte_tracking.extensions._snapshot_policy import SnapshotPolicy
from pte_tracking.extensions.object_snapshot import ObjectSnapshot, Stateful

_logger = logging.getLogger("pte_tracking")


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
    for name, value in {"keep_best": keep_best, "on_signal": on_signal}.items():
        if value is not None:
            raise ValueError(f"{name}: for snapshots of the whole training only, not together with target=")
    return ObjectSnapshot(filename, policy, target)


class TrainingSnapshot(SnapshotExtension):
    """Saves the whole training; see :func:`snapshot`."""

    default_name = "snapshot"

    def __init__(
        self, filename: str, policy: SnapshotPolicy, keep_best: Sequence[object] | None, on_signal: int | None
    ) -> None:
        super().__init__(filename, policy)
        self.keep_best = None if keep_best is None else BestPolicy.parse(keep_best)
        self._retention = Retention(self.template, policy.n_retains, self.keep_best)
        self._signal = None if on_signal is None else SignalFlag(on_signal)
        self._should_exit = False

    def is_urgent(self, manager: Manager) -> bool:
        # A signal reaches the ranks in different iterations; all of them save in the same.
        self._should_exit = self._signal is not None and manager.world.any_rank(self._signal.is_received)
        return self._should_exit

    def initialize(self, manager: Manager) -> None:
        super().initialize(manager)
        if manager.world.rank == 0:
            # Where a kill prevented it:
            register_unlisted(manager.run, self.template)
            self._retention.prune(manager.run)
        if self._signal is not None:
            self._signal.install()

    def __call__(self, manager: Manager) -> None:
        if not self._should_exit:
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
        own = self._retention.own_checkpoints(manager.run)
        if self.keep_best is not None and own and not self.keep_best.ranked(own):
            _logger.warning(
                "snapshot: keep_best: none of %d snapshots has a finite value of %r; take them in the iterations that "
                "report it",
                len(own),
                self.keep_best.key,
            )

    def _check_shards(self) -> None:
        super()._check_shards()
        if self.template.is_fixed:
            raise ValueError(
                f"filename: {self.template.glob!r} is always the same, but a folder of shards cannot take the place of "
                "another in one step; put {.iteration} into it, and give n_retains=1 to keep the newest alone"
            )

    def get_state(self, manager: Manager) -> dict[str, Any]:
        return manager.state_dict()

    def save(self, manager: Manager) -> None:
        self._writer.submit(
            SnapshotJob(
                manager.run,
                self.template.format(manager),
                lambda: self.get_state(manager),
                manager.models,
                SnapshotDetails(manager.iteration, _epoch_or_none(manager), dict(manager.observation)),
                self._retention,
                manager.world,
            )
        )


def _epoch_or_none(manager: Manager) -> float | None:
    try:
        return manager.epoch_detail
    except RuntimeError:
        return None  # nobody has told how long one is
