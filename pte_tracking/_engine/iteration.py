"""The ``with`` block of an iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from pte_tracking._engine.lifecycle import Lifecycle, LifecycleOwner, Phase
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.extension import Extension

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
        on_stop: Called at the end of each iteration after which the training should stop.

    Attributes:
        step_optimizers: Names of the optimizers to step in the next iteration.
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

    def __enter__(self) -> None:
        lifecycle = self._lifecycle
        if lifecycle.phase is not _RUNNING:
            lifecycle.start()
        # An extension may have ended the training in initialize().
        if lifecycle.phase is _RUNNING:
            lifecycle.phase = _IN_ITERATION
        owner = self._owner
        owner.observation = {}
        owner.measured_keys = _NO_KEYS
        self._reports.enter(owner.reporter, owner.observation)
        self._is_reporting = True
        for name in self.step_optimizers:
            owner.optimizers[name].zero_grad()

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
        elif self._stop.should_stop:
            self._on_stop()

    def leave(self) -> None:
        """Stop collecting reports. Has no effect outside an iteration."""
        if self._is_reporting:
            self._is_reporting = False
            self._reports.leave()
            if self._lifecycle.phase is _IN_ITERATION:
                self._lifecycle.phase = _RUNNING

    def _run_extensions(self) -> None:
        owner = self._owner
        owner.updater.iteration += 1
        self._reports.collect()
        # Each trigger is evaluated just before its extension runs: it may depend on values that earlier ones report.
        for entry in self._extensions.running:
            if entry.trigger.evaluate(owner) and entry.runs_here:
                if entry.measures:
                    call_and_measure(owner, entry.extension)
                else:
                    entry.extension(owner)
        saving = self._extensions.saving
        # Both conditions are always evaluated: all ranks may have to take part, and a trigger may keep a state.
        due = saving and [
            entry for entry in saving if any([entry.extension.is_urgent(owner), entry.trigger.evaluate(owner)])
        ]
        self._stop.evaluate(owner)
        for entry in due:
            if entry.runs_here:
                entry.extension(owner)


def call_and_measure(owner: LifecycleOwner, extension: Extension) -> None:
    """Call an extension that does not report in each iteration, and add the keys that it reports to ``measured_keys``.

    Args:
        owner: The manager.
        extension: The extension.
    """
    before = dict(owner.observation)
    extension(owner)
    # By identity: a value that is reported again is another object, also if it is equal.
    reported = {key for key, value in owner.observation.items() if before.get(key) is not value}
    if reported:
        owner.measured_keys = owner.measured_keys | reported
