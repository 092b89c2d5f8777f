"""Snapshots of the whole training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._interface.other_names import NO_WRITERS, refuse_names
from pte_tracking._snapshots.job import SnapshotDetails, SnapshotJob
from pte_tracking._snapshots.reopen import register_unlisted
from pte_tracking._snapshots.retention import BestPolicy, Retention
from pte_tracking._snapshots.signals import SignalFlag
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.similar import describe_known, is_misspelled
from pte_tracking.extensions._interval import has_ended_an_epoch
from pte_tracking.extensions._snapshot_base import SnapshotExtension
from pte_tracking.extensions._snapshot_mean import SnapshotMean
from pte_tracking.extensions._snapshot_policy import SnapshotPolicy
from pte_tracking.extensions._snapshot_values import LoggedValues
from pte_tracking.extensions.object_snapshot import ObjectSnapshot, Stateful
from pte_tracking.reporter import DeferredValue
from pte_tracking.sinks import Sink, get_sink
from pte_tracking.triggers import IntervalTrigger, TimeTrigger

_logger = logging.getLogger("pte_tracking")


@refuse_names(
    savefun="Snapshots are written in the format of torch.save.",
    writer=NO_WRITERS,
    saver_rank="Rank 0 writes, and every rank writes its own shards.",
    snapshot_mode="Models that are sharded are saved in shards without an option.",
)
@refuse_unknown()
def snapshot(
    filename: str = "snapshot_iter_{.iteration}",
    *,
    target: Stateful | Mapping[str, Stateful] | None = None,
    trigger: TriggerLike = (1, "epoch"),
    condition: Callable[[], bool] | None = None,
    n_retains: int = -1,
    keep_best: tuple[str, Literal["min", "max"], int] | None = None,
    autoload: bool = False,
    snapshot_on_error: bool = False,
    asynchronous: bool = True,
    at_end: bool = True,
    on_signal: int | None = None,
    mirror: str | None = None,
) -> Extension:
    """Save the complete training: models, optimizers, extensions, random state, and position in the data.

    ``resume()`` continues exactly. The training waits for a copy of the state only. Failed writes are logged.

    Args:
        filename: Name of the file in the run directory: a format string with numeric attributes of the manager.
        target: Object to save instead, without ``keep_best``, ``on_signal``, ``mirror``; see :func:`snapshot_object`.
        trigger: When to take a snapshot. Defaults to ``(1, "epoch")``, after each epoch.
        condition: Called without arguments when the trigger fires. No snapshot is taken if it returns False on rank 0.
        n_retains: Number of newest snapshots to keep. If it is not positive, all are kept; with ``keep_best``, one.
        keep_best: Best snapshots to keep in addition, such as ``("val/loss", "min", 3)``, by the mean over the interval
            between two snapshots, or by the value logged at the step. ``resume("best")`` uses the first.
        autoload: Whether the first iteration resumes from the newest intact snapshot, as ``resume()`` does.
        snapshot_on_error: Whether to save the state after an error, as a file that ends in ``_on_error``, which
            ``resume()`` never selects by itself. Sharded models do not support this.
        asynchronous: Whether to write in a separate thread, which needs memory for one more state.
        at_end: Whether to save the last state of a training that stops between two snapshots. ``break`` saves nothing.
        on_signal: Signal after which the process finishes the iteration, saves, and exits, such as ``signal.SIGTERM``.
        mirror: URL such as ``"s3://bucket/prefix"``, or path of a directory, to which the delivery process copies all
            snapshots of the run and its journal. ``resume()`` continues from there if ``out_dir`` has no snapshot.

    Returns:
        The extension.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the value of an argument is not allowed.

    Example:
        >>> import tempfile, torch, pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> saved = extensions.snapshot(n_retains=1, keep_best=("loss", "min", 1))
        >>> manager = pte.ExtensionsManager(
        ...     torch.nn.Linear(2, 1), 3, [saved], out_dir=tempfile.mkdtemp(), iters_per_epoch=2, sinks=[])
        >>> for batch in manager.batches([1, 2]):
        ...     with manager.run_iteration():
        ...         pte.report({"loss": abs(manager.iteration - 3)})
        >>> [checkpoint.path for checkpoint in manager.run.checkpoints()]
        ['snapshot_iter_4', 'snapshot_iter_6']
    """
    policy = SnapshotPolicy(trigger, condition, n_retains, autoload, snapshot_on_error, asynchronous, at_end)
    if target is None:
        return TrainingSnapshot(filename, policy, keep_best, on_signal, mirror)
    _check_absent(keep_best=keep_best, on_signal=on_signal, mirror=mirror)
    return ObjectSnapshot(filename, policy, target)


class TrainingSnapshot(SnapshotExtension):
    """Extension that saves the complete training; see :func:`snapshot`.

    Args:
        filename: Format string for the file name.
        policy: Shared options.
        keep_best: Best snapshots to keep in addition, or None.
        on_signal: Number of the signal to handle, or None.
        mirror: URL of the mirror, or None.
    """

    default_name = "snapshot"

    def __init__(
        self,
        filename: str,
        policy: SnapshotPolicy,
        keep_best: tuple[str, Literal["min", "max"], int] | None,
        on_signal: int | None,
        mirror: str | None = None,
    ) -> None:
        super().__init__(filename, policy)
        self._mirror = None if mirror is None else _mirror_sink(mirror)
        self.keep_best = None if keep_best is None else BestPolicy.parse(keep_best)
        self._mean = None if self.keep_best is None else SnapshotMean(self.keep_best.key)
        self._logged = LoggedValues("" if self.keep_best is None else self.keep_best.key)
        self._retention = Retention(self.template, policy.n_retains, self.keep_best)
        #: Rules of the sessions before the resume that differ from the current one.
        self._earlier_best: list[BestPolicy] = []
        #: Whether the state contains the current rule. An extension without a state may be added at a resume.
        self._has_saved = False
        #: Whether to check that the key of the metric is among the reported ones.
        self._checks_key = self.keep_best is not None
        self._signal = None if on_signal is None else SignalFlag(on_signal)
        self._should_exit = False

    def check(self, manager: Manager) -> None:
        if self._mirror is not None:
            manager.run.add_sink(self._mirror)

    def is_urgent(self, manager: Manager) -> bool:
        if self._mean is not None:
            self._mean.collect(manager)  # The engine calls this method in each iteration, after all reports.
        # Ranks may receive the signal in different iterations. All save in the same iteration.
        self._should_exit = self._signal is not None and manager.world.any_rank(self._signal.is_received)
        return self._should_exit

    def initialize(self, manager: Manager) -> None:
        super().initialize(manager)
        if manager.world.rank == 0:
            self.register_published(manager)
        if self._signal is not None:
            self._signal.install()

    def register_published(self, manager: Manager) -> None:
        """Register snapshots that were published just before a crash, and apply retention. Call this on rank 0.

        Args:
            manager: The manager, whose run is open.
        """
        register_unlisted(manager.run, self.template)
        self._retention = self._retention.protect(manager.run, self._earlier_best)
        self._retention.prune(manager.run)

    def end_interval(self) -> None:
        """End the interval of the mean with this iteration, unless only a signal requires the snapshot."""
        if self._mean is not None and not self._should_exit:
            self._mean.end_interval()

    def __call__(self, manager: Manager) -> None:
        if not self._should_exit:
            super().__call__(manager)
            return
        assert self._signal is not None
        self.save(manager)
        self._writer.wait()
        # The launcher stops all ranks when one exits. Wait until rank 0 has written the snapshot.
        manager.world.all_gather("exit after a signal", None)
        raise SystemExit(self._signal.exit_status)

    def saves_last_state(self, trigger: Callable[[Manager], bool]) -> bool:
        """Return whether to save the last state of a training that stops between two snapshots.

        Args:
            trigger: Trigger of the extension in the training.
        """
        # Another trigger may choose a state, such as the best one, in whose place the last one must not be saved.
        return self.policy.at_end and isinstance(trigger, IntervalTrigger | TimeTrigger)

    def finalize(self, manager: Manager) -> None:
        super().finalize(manager)
        if self._signal is not None:
            self._signal.restore()
        own = self._retention.own_checkpoints(manager.run)
        if self._mean is not None and not self._mean.is_reported and manager.world.rank == 0:
            self._logged.record(manager, own)
            self._retention.prune(manager.run)
            own = self._retention.own_checkpoints(manager.run)
        if self.keep_best is not None and own and not self.keep_best.ranked(own) and has_ended_an_epoch(manager):
            known = {**manager.run.latest_values, **manager.observation}
            if self._mean is not None and (self._mean.is_reported or self.keep_best.key in known):
                _logger.warning(
                    "snapshot: keep_best: none of the kept snapshots (%d) has a finite value of %r.",
                    len(own),
                    self.keep_best.key,
                )
            else:
                self._warn_unknown_key(known)

    def _check_key(self, manager: Manager, known: Iterable[str]) -> None:
        """Log a warning at an early snapshot if the metric is not among the known keys."""
        assert self._mean is not None
        earlier = self._retention.own_checkpoints(manager.run)
        key = self._logged.key
        if self._mean.is_reported or key in known or any(key in checkpoint.values for checkpoint in earlier):
            self._checks_key = False
        elif is_misspelled(key, known) or (earlier and has_ended_an_epoch(manager)):
            self._warn_unknown_key(known)

    def _warn_unknown_key(self, known: Iterable[str]) -> None:
        if not self._checks_key:
            return
        self._checks_key = False
        _logger.warning(
            "snapshot: keep_best: no value of %r was reported or logged so far, so the snapshots are not ranked. %s",
            self._logged.key,
            describe_known(self._logged.key, known),
        )

    def _has_logged_value(self, manager: Manager) -> bool:
        """Return whether the latest value of the metric belongs to this snapshot, also if it is not reported."""
        if self._mean is None or self._mean.is_reported or manager.world.rank:
            return True
        self._writer.wait()  # as the next job does, so that the previous snapshot has a checkpoint
        earlier = [item for item in self._retention.own_checkpoints(manager.run) if item.step < manager.iteration]
        self._logged.record(manager, earlier)
        return self._logged.is_current(manager, earlier)

    def get_state(self, manager: Manager) -> dict[str, Any]:
        return manager.state_dict()

    def state_dict(self) -> dict[str, Any]:
        state = {} if self._mean is None else self._mean.state_dict()
        own = [self.keep_best] if self.keep_best and self._has_saved else []
        if rankings := [list(best) for best in (*self._earlier_best, *own)]:
            state["keep_best"] = rankings
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._mean is not None:
            self._mean.load_state_dict(state)
        rankings = [BestPolicy(*ranking) for ranking in state.get("keep_best", [])]
        self._has_saved = self.keep_best is not None and any(best[:2] == self.keep_best[:2] for best in rankings)
        self._earlier_best = [best for best in rankings if self.keep_best is None or best[:2] != self.keep_best[:2]]

    def save(self, manager: Manager) -> None:
        self._has_saved = True
        # On the training thread: a deferred value calls a function of the user.
        values = {
            key: value() if isinstance(value, DeferredValue) else value for key, value in manager.observation.items()
        }
        values = {**manager.run.latest_values, **values}
        if self._checks_key and manager.world.rank == 0:
            self._check_key(manager, values)
        if self._mean is not None:
            if not self._has_logged_value(manager):
                values.pop(self._logged.key, None)
            self._mean.insert(values, manager)
        self._writer.submit(
            SnapshotJob(
                manager.run,
                self.template.format(manager),
                lambda: self.get_state(manager),
                manager.models,
                SnapshotDetails(manager.iteration, _epoch_or_none(manager), values),
                self._retention,
                manager.world,
            )
        )


def _mirror_sink(url: str) -> Sink:
    sink: Callable[[str], Sink] = get_sink("mirror")
    return sink(url)


def _check_absent(**arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name}: not allowed with target=. Use it for snapshots of the training only.")


def _epoch_or_none(manager: Manager) -> float | None:
    try:
        return manager.epoch_detail
    except RuntimeError:
        return None  # The epoch length is not set.
