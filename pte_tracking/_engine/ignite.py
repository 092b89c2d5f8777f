"""Extensions in an Ignite engine."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn, optim

from pte_tracking._engine.lifecycle import Phase
from pte_tracking._engine.manager import ExtensionsManager
from pte_tracking._engine.registry import ExtensionEntry
from pte_tracking._engine.state import StateObject
from pte_tracking._interface.extension import TriggerLike
from pte_tracking.sinks import Sink

if TYPE_CHECKING:
    from ignite.engine import Engine, State


class IgniteExtensionsManager(ExtensionsManager):
    """Runs extensions after each iteration of an Ignite engine, and keeps the record of the run.

    The extensions run after the user's own handlers of ``ITERATION_COMPLETED``, also those attached later; what these
    report, the extensions see. An exception that leaves ``engine.run()`` fails the run; one that a handler of
    ``EXCEPTION_RAISED`` swallows does not. When the stop trigger fires, the engine is terminated, at the end of the
    epoch if it is due anyway. When the engine stops earlier, the run stays open: ``engine.run()`` goes on with it,
    however the engine counts, and ``manager.close()`` or the end of the program ends it.

    To resume, restore the manager (or Ignite's own state, by ``engine.load_state_dict()``) and call ``engine.run()``.

    Args:
        engine: The engine that trains.
        models: A module, or modules by name.
        max_epochs: Epochs after which the training stops, unless ``stop_trigger`` says otherwise.
        extensions: The extensions; more can be added by :meth:`extend`.
        optimizers: An optimizer, or optimizers by name.
        iters_per_epoch: Iterations in one epoch; by default what the engine says.
        out_dir: The directory of the run.
        sinks: Where the run is delivered to: names such as ``"tensorboard"``, or configured sinks. The JSON log if
            None.
        params: Hyperparameters to be recorded; nested ones are flattened.
        tags: Labels of the run.
        stop_trigger: When the training stops: any trigger.
        state_objects: What else belongs into snapshots, by name.
        run_name: The run's name, for people.
        close_timeout: Seconds that the end of the training waits for the delivery at most.
        transform_model: Called with each name and model; what it returns is the model that extensions see and
            snapshots hold. By default, the module within a ``DistributedDataParallel`` or what ``torch.compile`` made,
            and any other as it is.

    Attributes:
        engine: The engine.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument's value cannot be.
    """

    def __init__(
        self,
        engine: Engine,
        models: nn.Module | Mapping[str, nn.Module],
        max_epochs: float,
        extensions: Iterable[Callable[..., Any] | ExtensionEntry] = (),
        *,
        optimizers: optim.Optimizer | Mapping[str, optim.Optimizer] | None = None,
        iters_per_epoch: int | None = None,
        out_dir: str | os.PathLike[str] = "result",
        sinks: Iterable[str | Sink] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        stop_trigger: TriggerLike = None,
        state_objects: Mapping[str, StateObject] | None = None,
        run_name: str | None = None,
        close_timeout: float = 30.0,
        transform_model: Callable[[str, nn.Module], nn.Module] | None = None,
    ) -> None:
        from ignite.engine import Engine, Events

        if not isinstance(engine, Engine):
            raise TypeError(f"engine: expected an ignite.engine.Engine, got {engine!r} of type {type(engine).__name__}")
        super().__init__(
            models,
            max_epochs,
            extensions,
            optimizers=optimizers,
            iters_per_epoch=iters_per_epoch,
            out_dir=out_dir,
            sinks=sinks,
            params=params,
            tags=tags,
            stop_trigger=stop_trigger,
            state_objects=state_objects,
            run_name=run_name,
            close_timeout=close_timeout,
            transform_model=transform_model,
        )
        self.engine = engine
        #: How far the engine's count is behind: it begins anew where it has done all that it was asked for.
        self._iteration_offset = 0
        self._started_epoch = 0
        engine.add_event_handler(Events.STARTED, self._on_started)
        engine.add_event_handler(Events.ITERATION_STARTED, self._on_iteration_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._on_iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._on_epoch_completed)
        # Not by a handler of EXCEPTION_RAISED: where there is one, the engine takes the exception for handled.
        engine.run = self._run_and_close(engine.run)  # type: ignore[method-assign]

    def _run_and_close(self, run: Callable[..., State]) -> Callable[..., State]:
        @functools.wraps(run)
        def run_and_close(*args: Any, **kwargs: Any) -> State:
            try:
                state = run(*args, **kwargs)
            except BaseException as error:
                self._lifecycle.fail(error)
                raise
            finally:
                self._iteration_scope.leave()
            if self.stop_trigger:
                self.close()
            return state

        return run_and_close

    def _on_started(self, engine: Engine) -> None:
        if self.is_ended:
            raise RuntimeError(
                f"the training is over since iteration {self.iteration} and its run has ended; to train on, make "
                "another manager with a larger max_epochs and restore this one's state"
            )
        self._lifecycle.open()
        state = engine.state
        if state.epoch_length is not None:
            self.updater.set_iters_per_epoch("epoch_length", state.epoch_length)
        # The manager was restored, but the engine was not.
        if self._lifecycle.phase is Phase.OPEN and self.iteration > 0 and state.iteration == 0:
            state.iteration, state.epoch = self.updater.rescaled_iteration, self.epoch
            self._iteration_offset = self.iteration - state.iteration
        else:
            self._iteration_offset = max(0, self.iteration - state.iteration)
        self.start()
        if state.dataloader is not None:
            state.dataloader = self.loaders.register(state.dataloader)
        if self.stop_trigger:
            engine.terminate()

    def _on_iteration_started(self, engine: Engine) -> None:
        if engine.state.epoch != self._started_epoch:
            self._started_epoch = engine.state.epoch
            self._move_handler_last()
        self.updater.iteration = self._iteration_offset + engine.state.iteration - 1
        self._iteration_scope.leave()  # the one before, if a handler swallowed its error
        self._iteration_scope.__enter__()

    def _on_iteration_completed(self, engine: Engine) -> None:
        self._iteration_scope.__exit__(None, None, None)

    def _move_handler_last(self) -> None:
        from ignite.engine import Events

        self.engine.remove_event_handler(self._on_iteration_completed, Events.ITERATION_COMPLETED)
        self.engine.add_event_handler(Events.ITERATION_COMPLETED, self._on_iteration_completed)

    def _on_stop(self) -> None:
        state = self.engine.state
        if state.epoch_length is None or state.iteration % state.epoch_length:
            self.engine.terminate()

    def _on_epoch_completed(self, engine: Engine) -> None:
        state = engine.state
        is_done = state.max_epochs is not None and state.epoch >= state.max_epochs
        if self.stop_trigger and not is_done:
            engine.terminate()
