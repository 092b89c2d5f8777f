"""Manager of the extensions in an Ignite engine."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn, optim

from pte_tracking._data.loader import ResumableLoader
from pte_tracking._engine.construction import check_positions
from pte_tracking._engine.entry import ExtensionEntry
from pte_tracking._engine.ignite_metrics import IgniteMetrics
from pte_tracking._engine.manager import ExtensionsManager
from pte_tracking._engine.parts import StateObjectLike
from pte_tracking._engine.phase import Phase
from pte_tracking._interface.extension import TriggerLike
from pte_tracking._interface.other_names import MANAGER_NAMES, refuse_names
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.printable import describe_value
from pte_tracking.sinks import Sink
from pte_tracking.triggers import IntervalTrigger

if TYPE_CHECKING:
    from ignite.engine import Engine, State

_logger = logging.getLogger("pte_tracking")


class IgniteExtensionsManager(ExtensionsManager):
    """Manager that runs extensions after each iteration of an Ignite engine.

    Extensions run after the user's handlers of ``ITERATION_COMPLETED``, and at the end of an epoch after those of
    ``EPOCH_COMPLETED``, including handlers attached later. They receive the values that these handlers report. An
    exception that leaves ``engine.run()`` fails the run; an exception that a handler of ``EXCEPTION_RAISED`` suppresses
    does not.

    When the stop trigger fires, the engine is terminated: at the end of the epoch if the trigger fires there. When the
    engine stops earlier, the run remains open. The next ``engine.run()`` continues it, and ``manager.close()`` or the
    end of the program ends it.

    To resume, restore the manager, or restore Ignite's state with ``engine.load_state_dict()``. Then call
    ``engine.run()``.

    Args:
        engine: Engine that trains.
        models: A module, or modules by name. A single module gets the name ``"main"``.
        max_epochs: Number of epochs after which the training stops. Positive; may be fractional. Required unless
            ``max_iterations`` or ``stop_trigger`` is given.
        extensions: Extensions, functions of the manager, or :class:`ExtensionEntry` objects. :meth:`extend` adds more.
            Defaults to none.
        optimizers: An optimizer, or optimizers by name. Defaults to none.
        max_iterations: Number of iterations after which the training stops, in place of ``max_epochs``. Defaults to
            None.
        iters_per_epoch: Number of iterations per epoch. Defaults to the epoch length of the engine.
        out_dir: Run directory. Defaults to ``"result"``.
        sinks: Names of installed sinks, such as ``"tensorboard"``, or sink objects. Defaults to the JSON log.
        params: Hyperparameters to log, such as a dictionary or ``parser.parse_args()``; see :meth:`Run.log_params`.
            Defaults to none.
        tags: Tags of the run. Defaults to none.
        stop_trigger: Trigger that stops the training, such as an ``EarlyStoppingTrigger``; at the latest after
            ``max_epochs`` or ``max_iterations``. A length such as ``(1000, "iteration")`` replaces ``max_epochs``.
            Defaults to the length of the training.
        state_objects: Other objects to save in snapshots, by name. Each has ``state_dict()`` and ``load_state_dict()``,
            or is a random generator of torch, NumPy, or Python, or a dictionary of tensors and plain values, which
            ``resume()`` restores in place. Defaults to none.
        run_name: Display name of the run. Defaults to the name of the run directory and a short ID.
        group: Group of the run, such as a sweep; see :class:`Run`. Defaults to none.
        close_timeout: Maximum number of seconds that the end of the run waits for delivery. Defaults to 30.
        transform_model: Function of the name and the model that returns the model for extensions and snapshots.
            Defaults to unwrapping ``DistributedDataParallel`` and ``torch.compile``.


    Attributes:
        engine: Engine that trains.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or contradicts another.

    Example:
        >>> from ignite.engine import Engine
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> engine = Engine(lambda engine, batch: pte.report({"train/loss": batch}))
        >>> manager = pte.IgniteExtensionsManager(engine, {}, 2, [extensions.LogReport()])
        >>> state = engine.run([0.5, 0.25], max_epochs=2)
        >>> manager.iteration, manager.is_ended
        (4, True)
    """

    #: Iteration at which the last call of engine.run() started.
    _first_iteration = 0
    _has_named_limits = False

    @refuse_names(**MANAGER_NAMES)
    @check_positions("engine", "models", "max_epochs", "extensions")
    @refuse_unknown()
    def __init__(
        self,
        engine: Engine,
        models: nn.Module | Mapping[str, nn.Module],
        max_epochs: float | None = None,
        extensions: Iterable[Callable[..., Any] | ExtensionEntry] = (),
        *,
        max_iterations: int | None = None,
        optimizers: optim.Optimizer | Mapping[str, optim.Optimizer] | None = None,
        iters_per_epoch: int | None = None,
        out_dir: str | os.PathLike[str] = "result",
        sinks: Iterable[str | Sink] | None = None,
        params: object = None,
        tags: Mapping[str, Any] | None = None,
        stop_trigger: TriggerLike = None,
        state_objects: Mapping[str, StateObjectLike] | None = None,
        run_name: str | None = None,
        group: str | None = None,
        close_timeout: float = 30.0,
        transform_model: Callable[[str, nn.Module], nn.Module] | None = None,
    ) -> None:
        with required_by("IgniteExtensionsManager", "pytorch-ignite", "'pte-tracking[ignite]'"):
            from ignite.engine import Engine, Events

        if not isinstance(engine, Engine):
            raise TypeError(f"engine: expected an ignite.engine.Engine, got {describe_value(engine)}")
        super().__init__(
            models,
            max_epochs,
            extensions,
            max_iterations=max_iterations,
            optimizers=optimizers,
            iters_per_epoch=iters_per_epoch,
            out_dir=out_dir,
            sinks=sinks,
            params=params,
            tags=tags,
            stop_trigger=stop_trigger,
            state_objects=state_objects,
            run_name=run_name,
            group=group,
            close_timeout=close_timeout,
            transform_model=transform_model,
        )
        self.engine = engine
        self.loaders.metrics = self._metrics = IgniteMetrics(engine)
        # The manager's number of iterations minus the engine's, which starts to count again after max_epochs.
        self._iteration_offset = 0
        self._started_epoch = 0
        self._has_unfinished_iteration = False
        engine.add_event_handler(Events.STARTED, self._on_started)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._on_batch_requested)
        engine.add_event_handler(Events.ITERATION_STARTED, self._on_iteration_started)
        # Later handlers see the iteration as completed. The extensions run after them.
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_scope.count)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._on_iteration_completed)
        engine.add_event_handler(Events.TERMINATE_SINGLE_EPOCH, self._on_epoch_terminated)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._on_epoch_completed)
        # Not a handler of EXCEPTION_RAISED: the engine does not raise an exception again if it has such a handler.
        engine.run = self._run_and_close(engine.run)  # type: ignore[method-assign]

    def _run_and_close(self, run: Callable[..., State]) -> Callable[..., State]:
        @functools.wraps(run)
        def run_and_close(*args: Any, **kwargs: Any) -> State:
            try:
                state = run(*args, **kwargs)
                self._end_iteration()
            except BaseException as error:
                self._iteration_scope.uncount()
                self._lifecycle.fail(error)
                raise
            finally:
                self._iteration_scope.leave()
            if self._stop.should_stop:
                self.close()
            else:
                self._iteration_scope.save_last()
                self._name_limits(state)
            return state

        return run_and_close

    def _on_started(self, engine: Engine) -> None:
        if self.is_ended:
            raise RuntimeError(
                f"Training already ended at iteration {self.iteration}. To continue, create another manager with a "
                "larger max_epochs and restore the state of this manager."
            )
        self._lifecycle.open()
        state = engine.state
        if state.epoch_length is not None:
            self.updater.set_iters_per_epoch("epoch_length", state.epoch_length)
        if state.dataloader is not None:
            state.dataloader = self.loaders.register(state.dataloader)
        self._data_loop.align_epochs()
        # The manager was restored, but the engine was not.
        if self._lifecycle.phase is Phase.OPEN and self.iteration > 0 and state.iteration == 0:
            progress = self.updater
            state.iteration, state.epoch = progress.rescaled_iteration - progress.skipped, self.epoch
            if progress.skipped:
                _set_position_in_epoch(engine, progress.position_in_epoch)
            self._iteration_offset = self.iteration - state.iteration
        else:
            self._iteration_offset = max(0, self.iteration - state.iteration)
        self.start()
        self._first_iteration = self.iteration
        if self._stop.should_stop:
            engine.terminate()

    def _name_limits(self, state: State) -> None:
        """Log that the length of the engine ended the training, and not that of the manager."""
        max_iters = getattr(state, "max_iters", None)  # since Ignite 0.5.3
        name, limit, done = "max_iters", max_iters, state.iteration
        if max_iters is None:
            name, limit, done = "max_epochs", state.max_epochs, state.epoch
        has_trained = self.iteration > self._first_iteration
        is_planned = isinstance(self._stop.trigger, IntervalTrigger) or not math.isinf(self.max_epochs)
        if limit is None or done < limit or self.world.rank or (has_trained and not is_planned):
            return
        if (self.engine.should_terminate and max_iters is None) or (has_trained and self._has_named_limits):
            return
        self._has_named_limits = True
        length = self.training_length
        _logger.log(
            logging.INFO if has_trained else logging.WARNING,
            "engine.run() ended at iteration %d%s, because its %s is %d. The manager trains until %s. To continue, "
            "pass a higher %s to engine.run().",
            *(self.iteration, "" if has_trained else " and trained nothing", name, limit),
            *("its stop trigger fires" if length is None else f"{length[0]} {length[1]}s are complete", name),
        )

    def _on_iteration_started(self, engine: Engine) -> None:
        if engine.state.epoch != self._started_epoch:
            self._started_epoch = engine.state.epoch
            self._move_handlers_last()
        self._end_iteration()
        progress = self.updater
        progress.iteration = self._iteration_offset + engine.state.iteration - 1
        self._metrics.restore(is_first=progress.has_epoch_length and not progress.position_in_epoch)
        # The previous iteration has not been left if a handler suppressed its exception.
        self._iteration_scope.leave()
        self._iteration_scope.__enter__()

    def _on_iteration_completed(self, engine: Engine) -> None:
        # The iteration lasts until the next batch is fetched, or until the handlers of EPOCH_COMPLETED have run.
        self._has_unfinished_iteration = True
        self._iteration_scope.count()
        state = engine.state
        is_epoch_end = state.epoch_length is not None and not self.updater.position_in_epoch
        if is_epoch_end:  # Handlers may be attached within the epoch.
            self._move_handlers_last()
        # Without data, Ignite fires no event before the next iteration, which is too late to stop.
        if engine.should_terminate or (state.dataloader is None and not is_epoch_end):
            self._on_batch_requested(engine)

    def _on_batch_requested(self, engine: Engine) -> None:
        self._end_iteration()
        if self._stop.should_stop:
            engine.terminate()

    def _on_epoch_terminated(self, engine: Engine, iter_counter: int = 0) -> None:
        """Let the epoch and the pass over the data end where ``engine.terminate_epoch()`` ended them."""
        if self.updater.has_epoch_length:
            self.updater.end_epoch(self._iteration_offset + engine.state.iteration)
        if isinstance(engine.state.dataloader, ResumableLoader):
            engine.state.dataloader.leave_pass()

    def _on_epoch_completed(self, engine: Engine) -> None:
        self._end_iteration()
        state = engine.state
        is_done = state.max_epochs is not None and state.epoch >= state.max_epochs
        if self._stop.should_stop and not is_done:
            engine.terminate()

    def _end_iteration(self) -> None:
        if self._has_unfinished_iteration:
            self._has_unfinished_iteration = False
            self._iteration_scope.__exit__(None, None, None)
            self._iteration_scope.complete()

    def _move_handlers_last(self) -> None:
        from ignite.engine import Events

        for event, handler in (
            (Events.ITERATION_COMPLETED, self._on_iteration_completed),
            (Events.EPOCH_COMPLETED, self._on_epoch_completed),
        ):
            self.engine.remove_event_handler(handler, event)
            self.engine.add_event_handler(event, handler)

    def check_data(self) -> None:
        """Check the position in the data before the first iteration, unless the engine trains without data."""
        if self.engine.state.dataloader is not None:
            super().check_data()

    def _on_stop(self) -> None:
        """Leave the run open: the engine is terminated, and :meth:`_run_and_close` ends the run."""


def _set_position_in_epoch(engine: Engine, position: int) -> None:
    """Let an engine continue at a position that it would not derive from its number of iterations."""
    if not hasattr(engine, "_init_iter"):  # the attribute is private
        import ignite

        raise RuntimeError(
            f"pytorch-ignite {ignite.__version__} does not continue at iteration {position} of an epoch after an epoch "
            "that ended early. Run: pip install 'pytorch-ignite==0.5.5'"
        )
    engine._init_iter = position
