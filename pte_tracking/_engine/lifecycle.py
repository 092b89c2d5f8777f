"""Life cycle of a training: the transitions between its phases, and the refused calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol, cast

from pte_tracking._engine.entry import ExtensionEntry, ObservedManager
from pte_tracking._engine.given_values import GivenValues
from pte_tracking._engine.optimizer_options import OptimizerOptions
from pte_tracking._engine.phase import TRANSITIONS, Phase
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.resuming import ranking, training_snapshots
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.extension import Manager
from pte_tracking._runs.outcome import ErrorId, error_id, outcome_of
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.reopen import open_on_rank_zero
from pte_tracking._store.events import Status
from pte_tracking.extensions.training_snapshot import TrainingSnapshot
from pte_tracking.triggers.description import describe_trigger

_STARTED = frozenset({Phase.RUNNING, Phase.IN_ITERATION})


class LifecycleOwner(ObservedManager, Protocol):
    """Manager that a :class:`Lifecycle` belongs to."""

    @property
    def length_in_iterations(self) -> int | None:
        """Maximum length of the training in iterations."""

    def check_data(self) -> None:
        """Check the position in the data before the first iteration."""

    def resume(self) -> Any:
        """Resume from the latest snapshot."""

    def close(self) -> None:
        """End the training."""


class Lifecycle:
    """Phase of a training, and the transitions between phases.

    Only :class:`~pte_tracking._engine.iteration.IterationScope` changes the phase as well, from RUNNING to IN_ITERATION
    and back: a call would cost time in each iteration.

    Args:
        owner: The manager; passed to the extensions.
        extensions: The extensions to initialize and to finalize.
        stop: The stop condition.
        options: Options of the optimizers that the script gives.
        given: Arguments of other objects that the script gives.

    Attributes:
        options: The same options.
        phase: The current phase.
        due: Entries that save the state when the current iteration ends, and the functions that save it.
        is_saving: Whether these extensions are running.
        before_training: Called before the first iteration, after a restore.
    """

    def __init__(
        self,
        owner: LifecycleOwner,
        extensions: ExtensionRegistry,
        stop: StopCondition,
        options: OptimizerOptions,
        given: GivenValues,
    ) -> None:
        self.phase = Phase.NEW
        self.due: list[tuple[ExtensionEntry, Callable[[Manager], object]]] = []
        #: Iteration of the last saved or restored states, and the entries that need not save it again.
        self._saved: tuple[int, list[ExtensionEntry]] = (-1, [])
        self.is_saving = False
        #: Exception that was handled when the training started.
        self._error_before: ErrorId | None = None
        self._owner = owner
        self._extensions = extensions
        self._stop = stop
        self.options = options
        self.before_training: Callable[[], None] = lambda: None
        self._given = given

    @property
    def is_started(self) -> bool:
        """Whether the extensions are initialized and not finalized."""
        return self.phase in _STARTED

    @property
    def is_ended(self) -> bool:
        """Whether the training has ended."""
        return self.phase is Phase.ENDED

    # -- refused calls -------------------------------------------------------------------------------------------------

    def check_extendable(self) -> None:
        """Raise RuntimeError if no extension can be added any more."""
        if self.phase not in (Phase.NEW, Phase.OPEN):
            raise RuntimeError(
                "extend(): the training has already started or ended. Add all extensions before the first iteration."
            )

    def check_runnable(self) -> None:
        """Raise RuntimeError if no iteration can begin now."""
        if self.phase is Phase.IN_ITERATION:
            raise RuntimeError(
                "run_iteration(): an iteration is in progress. End its 'with' block first. In a loop over "
                "manager.iterations(loader), remove the 'with' block."
            )
        if self.phase is not Phase.ENDED:
            return
        iteration = self._owner.iteration
        if self._stop.should_stop:
            raise RuntimeError(
                f"Training already stopped at iteration {iteration}. Check manager.stop_trigger in the loop condition."
            )
        raise RuntimeError(
            f"The run ended after iteration {iteration}, before the training was complete. To continue, create another "
            "manager and call its resume()."
        )

    # -- transitions ---------------------------------------------------------------------------------------------------

    def begin_restore(self, call: str) -> None:
        """Prepare all ranks to restore a state.

        Args:
            call: The call that restores the state, as named in messages.

        Raises:
            RuntimeError: If the training has already started or ended.
            ValueError: If the ranks disagree.
        """
        if self.phase not in (Phase.NEW, Phase.OPEN):
            raise RuntimeError(
                f"{call}: the training has already started or ended. Restore its state before the first iteration."
            )
        self._owner.run.end_earlier_runs()
        self._join(call)
        self.options.begin_restore()

    def open(self) -> None:
        """Open the run, or resume it if a snapshot extension has ``autoload=True``."""
        owner = self._owner
        if owner.run.is_open and (owner.world.is_single_process or self.phase is not Phase.NEW):
            if self.phase is Phase.NEW:
                self._enter(Phase.OPEN)
            return
        owner.run.end_earlier_runs()
        self._join("the opening of the run")
        # Rank 0 has opened the run if it has logged anything.
        is_open = owner.world.run_on_rank_zero("the check for an open run", lambda: owner.run.is_open)
        if not is_open and any(snapshot.policy.autoload for snapshot in training_snapshots(self._extensions)):
            owner.resume()
            return
        open_on_rank_zero(owner.world, owner.run, lambda: None if owner.run.is_open else owner.run.open())

    def start(self) -> None:
        """Open the run and initialize the extensions, before the first iteration.

        Raises:
            RuntimeError: If the training has ended, also if it had ended when the restored snapshot was saved.
        """
        owner = self._owner
        self.check_runnable()
        self.open()
        if self._stop.should_stop:
            owner.close()
            self.check_runnable()
        self._check_ranks("the first iteration")
        owner.check_data()
        owner.run.rewind()
        self.options.begin_training()
        self.before_training()
        self._given.begin_training(owner.world.rank)
        try:
            self._enter(Phase.RUNNING)
            self._begin_training()
        except BaseException as error:  # also an interrupt: extensions that are partly initialized cannot continue
            self.fail(error)
            raise

    def _begin_training(self) -> None:
        owner = self._owner
        self._error_before = error_id(sys.exc_info()[1])
        # A loop that is left without close() ends with its run, at the latest with the interpreter.
        owner.run.before_close.append(self._finalize_with_run)
        owner.run.is_complete = lambda: self._stop.should_stop
        owner.run.describe_progress = self._describe_progress
        owner.updater.start_clock()
        owner.observation, owner.measured_keys = {}, frozenset()
        random_state = rng.get_state()
        if best := ranking(self._extensions):
            owner.run.set_ranking(best.key, best.mode)
        self._extensions.initialize(owner)
        self._saved = owner.iteration, list(self._extensions.saving)
        if owner.is_before_training:
            with owner.reporter.scope(owner.observation):
                self._extensions.call_before_training(owner)
        else:
            # The resumed training initialized its extensions, and called them, before its first iteration.
            rng.set_state(random_state)

    def fail(self, error: BaseException) -> None:
        """End the training after an exception.

        Args:
            error: The exception. Extensions get it through ``on_error()`` unless it is an interrupt or an exit.
        """
        if self.phase in _STARTED and isinstance(error, Exception):
            self._extensions.on_error(self._owner, error)
        self.finish(error)

    def finish(self, error: BaseException | None = None, status: Status | None = None) -> None:
        """End the training and its run. Has no effect if the training has ended.

        Args:
            error: The exception that ended the training; None if it ended normally.
            status: The status of the run if there was no exception. Defaults to FINISHED.

        Raises:
            Exception: If an extension raises in ``finalize()`` and ``error`` is None.
        """
        run = self._owner.run
        if self.phase is Phase.ENDED:
            run.close()  # it may have been opened again
            return
        if error is None and self._stop.should_stop:
            if self.phase is Phase.RUNNING:
                self.add_last_calls()
            elif self.phase is Phase.OPEN and status is None and run.finish_complete():
                for snapshot in training_snapshots(self._extensions):
                    snapshot.register_published(self._owner)
        first = self.finalize(error)
        if first is None and status is not None:
            run.close(status)
        else:
            run.close(*outcome_of(first))
        if first is not None and first is not error:
            raise first

    def finalize(self, error: BaseException | None = None) -> BaseException | None:
        """Finalize the extensions, once.

        Args:
            error: The exception that ended the training; None if it ended normally.

        Returns:
            ``error``, or else the first exception that an extension raised.
        """
        if self.phase is Phase.ENDED:
            return error
        has_started = self.phase in _STARTED
        try:
            self.save_due()
        except BaseException as save_error:
            error = error or save_error
        self._enter(Phase.ENDED)
        self._owner.updater.stop_clock()
        return self._extensions.finalize(self._owner, error) if has_started else error

    def save_due(self) -> None:
        """Save the state with the extensions that are due at the end of the last iteration."""
        due, self.due = self.due, []
        self.is_saving = True
        for _, save in due:  # All of them first: each snapshot contains the states of the other extensions.
            if isinstance(save, TrainingSnapshot):
                save.end_interval()
        try:
            for entry, save in due:
                save(self._owner)
                iteration, entries = self._saved
                self._saved = self._owner.iteration, [*(entries if iteration == self._owner.iteration else ()), entry]
        finally:
            self.is_saving = False

    def add_last_calls(self) -> None:
        """Add the snapshots of the last iteration before the training stops, unless they are due or saved."""
        iteration, entries = self._saved
        present = [entry for entry, _ in self.due] + (entries if iteration == self._owner.iteration else [])
        for entry in self._extensions.saving:
            extension = entry.extension
            if not isinstance(extension, TrainingSnapshot) or entry in present:
                continue
            if extension.saves_last_state(entry.trigger):
                self.due.append((entry, extension.save_if_allowed))

    def _describe_progress(self) -> str:
        length = self._owner.length_in_iterations
        return f"ended at iteration {self._owner.iteration}" + ("" if length is None else f" of {length}")

    def _finalize_with_run(self) -> None:
        """Finalize the extensions of a training whose run ends first, for example with the interpreter."""
        error = sys.exc_info()[1] or self._owner.run.uncaught_error
        is_own_error = isinstance(error, Exception) and error_id(error) != self._error_before
        if is_own_error and self.phase in _STARTED:
            self._extensions.on_error(self._owner, cast(Exception, error))
        finalize_error = self.finalize(error if is_own_error else None)
        if finalize_error not in (None, error):
            raise finalize_error

    def _enter(self, phase: Phase) -> None:
        if phase not in TRANSITIONS[self.phase]:
            raise RuntimeError(f"phase: cannot change from {self.phase.name} to {phase.name}")
        self.phase = phase

    def _join(self, topic: str) -> None:
        """Connect all ranks, and check that they agree on the training."""
        self._enter(Phase.OPEN)
        self._owner.world.join()
        self._check_ranks(topic)

    def _check_ranks(self, topic: str) -> None:
        owner = self._owner
        owner.world.check_consistent(
            topic,
            {
                "out_dir": str(owner.run.directory),
                "sinks": [repr(sink) for sink in owner.run.sinks],
                "extensions": self._extensions.description(),
                "models": list(owner.models),
                "optimizers": list(owner.optimizers),
                "max_epochs": owner.max_epochs,
                "stop_trigger": f"{describe_trigger(self._stop.trigger)}, {owner.training_length}",
                "iters_per_epoch": owner.iters_per_epoch if owner.updater.has_epoch_length else None,
            },
        )
