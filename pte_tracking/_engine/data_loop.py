"""Iteration over data loaders in a training, and the checks of their positions after a resume."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterator
from typing import Any, Protocol

from torch import nn

from pte_tracking._data.combined import combine, dataset_hint
from pte_tracking._data.position import length_of
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._distributed.world import World
from pte_tracking._engine.iteration import IterationScope
from pte_tracking._engine.loop_exit import is_left_by_statement
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run

_logger = logging.getLogger("pte_tracking")


class LoopOwner(Protocol):
    """Manager that a :class:`DataLoop` belongs to."""

    updater: Progress
    loaders: LoaderRegistry
    world: World
    run: Run

    def start(self) -> None:
        """Start the training before the first batch."""

    def fail(self, error: Exception) -> None:
        """End the training after an exception."""

    def close(self) -> None:
        """End the training."""


class _Loop:
    """State of a loop over a loader.

    Attributes:
        iteration: Number of completed iterations at the last batch.
        is_replaced: Whether a later loop has the same name.
    """

    __slots__ = ("is_replaced", "iteration")

    def __init__(self) -> None:
        self.iteration = -1
        self.is_replaced = False


class DataLoop:
    """Loops over the batches of data loaders.

    Args:
        owner: The manager.
        scope: The iterations of the training.
        stop: The stop condition.

    Attributes:
        ends_iterations: Whether the loop has read ``manager.stop_trigger``, which saves the state where a snapshot is
            due.
    """

    def __init__(self, owner: LoopOwner, scope: IterationScope, stop: StopCondition) -> None:
        self._owner = owner
        self._scope = scope
        self._stop = stop
        self.ends_iterations = False
        #: Whether batches() was called, and no batch was requested since then.
        self._is_requested = False
        #: Whether a loop has yielded its last batch.
        self._has_ended = False
        self._has_warned_of_end = False
        #: Whether the body of a loop over iterations() has begun and not ended.
        self._is_in_body = False
        #: The newest loop of each name.
        self._loops: dict[str, _Loop] = {}

    def batches(self, loader: Any, name: str) -> Generator[Any]:
        """Yield the batches of a loader until the training stops; see :meth:`ExtensionsManager.batches`."""
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {name!r}. Pass several loaders as a dictionary.")
        is_iterable = hasattr(type(loader), "__iter__") or hasattr(type(loader), "__getitem__")
        is_iterable &= not isinstance(loader, str | bytes)
        hint = dataset_hint(loader)
        if not is_iterable or isinstance(loader, nn.Module) or hint:  # nn.Sequential would yield its layers
            raise TypeError(
                "loader: expected a DataLoader or another iterable of batches, "
                f"got an object of type {type(loader).__name__}{hint}"
            )
        self._is_requested = True
        return self._iterate(combine(loader), name)

    def _iterate(self, loader: Any, name: str) -> Generator[Any]:
        owner, progress, scope, loop = self._owner, self._owner.updater, self._scope, _Loop()
        self._is_requested = False
        self._begin()
        previous = self._loops.get(name)
        if previous is not None:
            if previous.iteration == progress.iteration:
                raise _two_loops_error(name)
            previous.is_replaced = True
        self._loops[name] = loop
        self._warn_if_ended()
        try:
            length = None if progress.is_epoch_length_set else length_of(loader)
            if length is not None:
                progress.set_iters_per_epoch("len(loader)", length)
            may_check = progress.iteration == 0  # Otherwise, the first pass may be a part of one.
            owner.loaders.register(loader, name)
            owner.start()
            while not self._stop.should_stop:
                before, taken = progress.iteration, 0
                for batch in owner.loaders.register(loader, name):
                    taken += 1
                    loop.iteration = progress.iteration
                    yield batch
                    if loop.is_replaced:
                        raise _two_loops_error(name)
                    scope.complete()
                    if self._stop.should_stop:
                        break
                count = progress.iteration - before
                if length is not None and may_check and 0 < count < taken == length:
                    self._warn_about_several_batches(count)
                    length = None
                may_check = True
                if not count:
                    raise _no_iteration_error(loader)
        except Exception as error:
            owner.fail(error)
            raise
        except KeyboardInterrupt:
            self._interrupt()
            raise
        finally:
            if self._loops.get(name) is loop:
                del self._loops[name]
        self._has_ended = True
        owner.close()

    def iterations(self, loader: Any, name: str) -> Iterator[Any]:
        """Yield the batches of a loader, each within an iteration; see :meth:`ExtensionsManager.iterations`."""
        return self._within_iterations(self._count() if loader is None else self.batches(loader, name))

    def _count(self) -> Generator[int]:
        owner, progress = self._owner, self._owner.updater
        has_epochs = any(unit == "epoch" for _, unit in self._stop.training_lengths)
        # An iterator of batches() sets the epoch length when it is requested first.
        if has_epochs and not progress.has_epoch_length and not self._is_requested:
            raise ValueError(
                "iterations(): the length of the training is in epochs, but no loader sets the epoch length. Write "
                "manager.iterations(loader), or pass iters_per_epoch= or max_iterations= to the manager."
            )
        self._begin()
        self._warn_if_ended()
        owner.start()
        while not self._stop.should_stop:
            yield progress.iteration
            self._scope.complete()
        self._has_ended = True
        owner.close()

    def _within_iterations(self, batches: Generator[Any]) -> Iterator[Any]:
        scope, run = self._scope, self._owner.run
        try:
            if self._report_open_iteration not in run.before_close:
                run.before_close.append(self._report_open_iteration)
            for batch in batches:
                scope.step_optimizers = ()
                scope.__enter__()
                self._is_in_body = True
                try:
                    yield batch
                except GeneratorExit:
                    self._is_in_body = False
                    if is_left_by_statement(sys._getframe(1)):
                        scope.__exit__(None, None, None)
                    else:  # The exception ends the run with the script, the block of the manager, or the next run.
                        self._interrupt()
                    raise
                self._is_in_body = False
                scope.__exit__(None, None, None)
        except KeyboardInterrupt:  # between two bodies
            self._interrupt()
            raise
        finally:
            self._is_in_body = False
            batches.close()  # The traceback of an interactive session would keep it in progress.

    def _warn_if_ended(self) -> None:
        if self._has_ended and not self._has_warned_of_end and self._owner.world.rank == 0:
            self._has_warned_of_end = True
            _logger.warning(
                "The training has ended, so this loop yields nothing. manager.iterations() and manager.batches() yield "
                "the batches of all epochs: remove a loop over epochs around them."
            )

    def _begin(self) -> None:
        """Begin a loop. After an interrupt, optimizers are watched again: a notebook may have created other ones."""
        if self._owner.run.is_abandoned:
            self._owner.run.is_abandoned = False
            self._scope.watch_again()

    def _interrupt(self) -> None:
        """Mark the run as left by an exception, and let displays end their lines before the exception is printed."""
        self._scope.leave()
        run = self._owner.run
        if run.is_abandoned:
            return
        run.is_abandoned = True
        for function in run.on_interrupt:
            function()

    def _warn_about_several_batches(self, count: int) -> None:
        progress = self._owner.updater
        if self._owner.world.rank == 0 and not self._stop.should_stop:
            _logger.warning(
                "A pass over the loader took %d iterations, but an epoch has %d, the number of batches. If an "
                "iteration takes several batches, pass iters_per_epoch=%d, so that epochs are passes.",
                *(count, progress.iters_per_epoch, count),
            )

    def _report_open_iteration(self) -> None:
        """Log a warning if the run ends within the body of a loop over iterations(), although no exception left it."""
        owner, run = self._owner, self._owner.run
        has_failed = run.is_abandoned or sys.exc_info()[1] or run.uncaught_error
        if self._is_in_body and owner.world.rank == 0 and not has_failed:
            _logger.warning(
                "The iteration after iteration %d was not counted, and its values were not logged, because the run "
                "ended before it. A loop over manager.iterations(loader) that is left by break ends its iteration only "
                "if no variable refers to the iterator. Write, for example, 'for batch in "
                "tqdm(manager.iterations(loader)):', or request the next batch before the end of the run.",
                owner.updater.iteration,
            )

    def align_epochs(self) -> None:
        """Let the epoch end with the pass over the main loader, if its position was rescaled at a resume."""
        progress = self._owner.updater
        if progress.has_epoch_length:
            taken = self._owner.loaders.rescaled_position("main", progress.iters_per_epoch)
            if taken is not None:
                progress.align(taken)

    def check_position(self) -> None:
        """Warn if the training was resumed within an epoch and its loop does not continue there."""
        progress, loaders = self._owner.updater, self._owner.loaders
        if not progress.has_epoch_length or self._is_requested:  # the first batch is requested next
            return
        if not progress.rescaled_iteration % progress.iters_per_epoch:
            self._check_end_of_epoch()
            return
        if not loaders.is_position_lost:
            loaders.warn_about_new_loaders()
            return
        progress.are_passes_aligned = False
        length = min(self._stop.training_lengths, default=None)
        self._scope.outlasts_stop = length is not None and length[1] == "epoch"
        if self._owner.world.rank == 0:
            _logger.warning(
                "The training was resumed after iteration %d of %d of an epoch, and the loop does not use "
                "manager.batches(loader). The order of the data and the position in the epoch are not restored: a "
                "loop over a loader starts with its first batch, and the training ends with the pass in which the last "
                "epoch ends. To resume exactly, write: for batch in manager.batches(loader).",
                *(progress.rescaled_iteration % progress.iters_per_epoch, progress.iters_per_epoch),
            )

    def _check_end_of_epoch(self) -> None:
        """Warn if the snapshot of the end of an epoch was saved after the next pass over a loader had begun."""
        loaders = self._owner.loaders
        is_late = loaders.is_position_lost and loaders.has_drawn and not self.ends_iterations
        if is_late and self._owner.world.rank == 0:
            _logger.warning(
                "The loop does not use manager.batches(loader), and begins the next pass over its loader before the "
                "snapshot of the end of an epoch is saved. A shuffled loader therefore has another order than without "
                "the interruption. To resume exactly, write: for batch in manager.batches(loader), or read "
                "manager.stop_trigger after each epoch."
            )


def _two_loops_error(name: str) -> RuntimeError:
    return RuntimeError(
        f"batches(): another loop over the loader {name!r} is in progress. Give each loader a name, as in "
        "zip(manager.batches(a), manager.batches(b, name='b')), or pass several loaders together, as in "
        "manager.batches({'a': a, 'b': b}). If an earlier loop was left, delete the variable that refers to its "
        "iterator, such as a progress bar."
    )


def _no_iteration_error(loader: object) -> RuntimeError:
    if isinstance(loader, Iterator):
        return RuntimeError(
            f"loader: the {type(loader).__name__} is exhausted, and the training continues. An iterator yields its "
            "batches only once: pass a list, or an object whose __iter__() begins a new pass."
        )
    return RuntimeError(
        "loader: a whole epoch passed without an iteration. Check that the loader is not empty and can be iterated "
        "repeatedly, and that a loop over manager.batches() contains 'with manager.run_iteration():'."
    )
