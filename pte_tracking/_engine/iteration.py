"""Iterations of a training: the ``with`` block, the extensions at its end, and the work that waits until they end.

An iteration lasts until the next one begins, so a scheduler step, clipping, or validation after the block is part
of it. Extensions run at the end of the block. State is saved, and the run is ended, by
:meth:`IterationScope.complete`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from pte_tracking._engine.lifecycle import Lifecycle, LifecycleOwner
from pte_tracking._engine.phase import Phase
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.progress import EpochLengthError

# A global is faster to look up than a member of an enum, and each iteration needs these.
_RUNNING, _IN_ITERATION, _ENDED = Phase.RUNNING, Phase.IN_ITERATION, Phase.ENDED
_NO_KEYS: frozenset[str] = frozenset()


class IterationScope:
    """Context manager of an iteration; one object serves all iterations.

    Args:
        owner: The manager; passed to the extensions.
        lifecycle: The life cycle of the training.
        extensions: The extensions to run at the end of each iteration.
        stop: The stop condition, evaluated at the end of each iteration.
        on_stop: Called when an iteration ends after which the training should stop.

    Attributes:
        step_optimizers: Names of the optimizers to step in the next iteration.
        outlasts_stop: Whether iterations may follow after the training should stop, until the loop reads
            ``stop_trigger``.
    """

    def __init__(
        self,
        owner: LifecycleOwner,
        lifecycle: Lifecycle,
        extensions: ExtensionRegistry,
        stop: StopCondition,
        on_stop: Callable[[], None],
    ) -> None:
        self.step_optimizers: Sequence[str] = ()
        self.outlasts_stop = False
        self._owner = owner
        self._lifecycle = lifecycle
        self._extensions = extensions
        self._stop = stop
        self._on_stop = on_stop
        self._reports = owner.reporter.iteration_reports(
            lambda: lifecycle.phase in (_RUNNING, _IN_ITERATION), warns=owner.world.rank == 0
        )
        # Not a phase: a training may end within the block, and its reports are collected until the block ends.
        self._is_reporting = False
        self._is_counted = False
        #: Whether work of the last iteration waits for its end.
        self._is_pending = False
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        if self._is_pending:
            self.complete(may_stop=not self.outlasts_stop)
        lifecycle = self._lifecycle
        if lifecycle.phase is not _RUNNING:
            lifecycle.start()
            self._thread = threading.get_ident()
        # An extension may have ended the training in initialize().
        if lifecycle.phase is _RUNNING:
            lifecycle.phase = _IN_ITERATION
        owner = self._owner
        owner.observation = {}
        owner.measured_keys = _NO_KEYS
        self._reports.enter(owner.reporter, owner.observation)
        self._is_reporting = True
        self._is_counted = False
        owner.updater.pending = 1
        for name in self.step_optimizers:
            _clear_gradients(owner, name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lifecycle = self._lifecycle
        try:
            if error is None and lifecycle.phase is not _ENDED:
                for name in self.step_optimizers:
                    self._owner.optimizers[name].step()
                self._run_extensions()
        except BaseException as problem:
            lifecycle.fail(problem)
            raise
        finally:
            self.leave()
        if error is not None:
            lifecycle.fail(error)

    def count(self) -> None:
        """Count the iteration as completed, before its extensions run. Has no effect if it is counted."""
        if not self._is_counted:
            self._is_counted = True
            self._owner.updater.iteration += 1
            self._owner.updater.pending = 0

    def uncount(self) -> None:
        """Do not count the iteration in progress, which failed before its extensions ran."""
        if self._is_counted and self._is_reporting:
            self._is_counted = False
            self._owner.updater.iteration -= 1

    def leave(self) -> None:
        """Stop collecting reports. Has no effect outside an iteration."""
        if self._lifecycle.phase is _IN_ITERATION:
            self._lifecycle.phase = _RUNNING
        if self._is_reporting:
            self._is_reporting = False
            self._owner.updater.pending = 0
            self._reports.leave()

    def complete(self, *, may_stop: bool = True) -> None:
        """End the last iteration: save the state where a snapshot is due, and stop the training if it should stop.

        Has no effect within an iteration, or if nothing waits.

        Args:
            may_stop: Whether to stop the training if it should stop.
        """
        lifecycle = self._lifecycle
        if not self._is_pending or lifecycle.is_saving or lifecycle.phase is not _RUNNING:
            return
        self._is_pending = False
        try:
            lifecycle.save_due()
        except BaseException as error:
            lifecycle.fail(error)
            raise
        if may_stop and self._stop.should_stop:
            self._on_stop()

    def save_last(self) -> None:
        """Save the state of the last iteration of a loop that ended before the stop trigger fired.

        Has no effect if the state is saved, or before the first iteration.
        """
        if self._lifecycle.phase is _RUNNING:
            self._lifecycle.add_last_calls()
            self._is_pending = True
            self.complete()

    def complete_in_own_thread(self) -> None:
        """End the last iteration if a snapshot is due, in a single process only and in the thread that trains.

        Ranks save the state together, but one rank may read a property more often than the others. A thread that writes
        a snapshot reads the list of checkpoints, too.
        """
        if self._is_pending and self._owner.world.is_single_process and threading.get_ident() == self._thread:
            self.complete()

    def watch_again(self) -> None:
        """Watch the optimizers of a training that has started as before its first iteration."""
        if self._lifecycle.is_started:
            self._lifecycle.before_training()

    def _run_extensions(self) -> None:
        owner, lifecycle = self._owner, self._lifecycle
        if not self._is_counted:  # in place of count(), because this code runs in each iteration
            owner.updater.iteration += 1
            owner.updater.pending = 0
        if self._reports.from_threads:
            self._reports.collect()
        if lifecycle.options.changes:
            lifecycle.options.report(owner.world.rank)
        entry = None
        # Each trigger is evaluated just before its extension runs: it may depend on values that earlier ones report.
        try:
            for entry in self._extensions.running:
                entry.run(owner)
        except BaseException as error:
            self._extensions.collect_after(entry, owner)
            if isinstance(error, EpochLengthError) and entry is not None:
                raise RuntimeError(f"extension {entry.name!r}: {error}") from error
            raise
        due, entry = [], None
        try:
            for entry in self._extensions.saving:
                # Both conditions are always evaluated: all ranks may have to take part, and a trigger may keep a state.
                if any([entry.extension.is_urgent(owner), entry.trigger.evaluate(owner)]):
                    due.append(entry)
            entry = None
            self._stop.evaluate(owner)
            if self._stop.should_stop:
                self._extensions.on_stop(owner)
        except EpochLengthError as error:
            name = "max_epochs, or stop_trigger" if entry is None else f"extension {entry.name!r}"
            raise RuntimeError(f"{name}: {error}") from error
        for entry in due:
            if not entry.runs_here:
                continue
            # What runs after a snapshot at the end of the block also runs after it at the end of the iteration.
            if entry.extension.saves_state or lifecycle.due:
                lifecycle.due.append((entry, entry.extension))
            else:
                entry.call(owner)
        self._is_pending = self._stop.should_stop or bool(lifecycle.due)


def _clear_gradients(owner: LifecycleOwner, name: str) -> None:
    """Set the gradients of an optimizer to zero; those of its model, or of all models, if it has no ``zero_grad()``."""
    optimizer = owner.optimizers[name]
    if hasattr(optimizer, "zero_grad"):
        optimizer.zero_grad()
        return
    for model in [owner.models[name]] if name in owner.models else owner.models.values():
        model.zero_grad()
