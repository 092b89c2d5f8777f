"""Manager of the extensions in a user's training loop."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from torch import nn, optim

from pte_tracking._data.batch_digest import BatchDigest
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._distributed.world import World
from pte_tracking._engine.construction import (
    build_reporter,
    check_extensions,
    check_positions,
    names_by_id,
    optimizers_by_name,
    state_objects_by_name,
    stateful_by_name,
    training_limit,
    transform_models,
)
from pte_tracking._engine.data_loop import DataLoop
from pte_tracking._engine.entry import ExtensionEntry
from pte_tracking._engine.given_values import GivenValues
from pte_tracking._engine.iteration import IterationScope
from pte_tracking._engine.lifecycle import Lifecycle
from pte_tracking._engine.optimizer_options import OptimizerOptions
from pte_tracking._engine.parts import StateObjectLike
from pte_tracking._engine.phase import Phase
from pte_tracking._engine.registry import ExtensionRegistry
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._engine.training_loop import TrainingLoop
from pte_tracking._interface.extension import Extension, TriggerLike
from pte_tracking._interface.other_names import MANAGER_NAMES, refuse_names
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.events import Status
from pte_tracking._store.layout import check_directory
from pte_tracking.reporter import Observation
from pte_tracking.sinks import Sink
from pte_tracking.triggers import get_trigger


class ExtensionsManager(TrainingLoop):
    """Manager that runs extensions around the iterations of a user's training loop.

    At the end of each iteration the extensions run in the order of their priorities, each if its trigger fires. Then
    the stop trigger is evaluated, and snapshots are saved.

    With ``torch.distributed``, each rank constructs the same manager and makes the same calls. Rank 0 writes the run.

    Args:
        models: A module, or modules by name. A single module gets the name ``"main"``.
        max_epochs: Number of epochs after which the training stops. Positive; may be fractional. Required unless
            ``max_iterations`` or ``stop_trigger`` is given.
        extensions: Extensions, functions of the manager, or :class:`ExtensionEntry` objects. :meth:`extend` adds more.
            Defaults to none.
        optimizers: An optimizer, or optimizers by name. Defaults to none.
        max_iterations: Number of iterations after which the training stops, in place of ``max_epochs``. Defaults to
            None.
        iters_per_epoch: Number of iterations per epoch. Defaults to the length of the loader passed to
            :meth:`iterations` or :meth:`batches`, or the ``epoch_size`` passed to :meth:`run_iteration`.
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
        models: Models by name, as returned by ``transform_model``.
        raw_models: Models by name, as passed.
        optimizers: Optimizers by name.
        max_epochs: Number of epochs that the training is planned for. Infinite if only ``max_iterations`` or a stop
            trigger was given.
        run: Run of the training.
        observation: Values reported in the current iteration, by key.
        measured_keys: Keys of those values in ``observation`` that an extension reported whose trigger is rarer than
            each iteration, such as an Evaluator.
        reporter: Reporter of the training.
        updater: Counters ``iteration``, ``epoch``, ``epoch_detail``, and ``is_new_epoch``.
        loaders: Data loaders whose positions are saved in snapshots.
        world: Rank and world size, as ``world.rank`` and ``world.size``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or contradicts another.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> manager = pte.ExtensionsManager(model, 2, [extensions.LogReport()], optimizers=optimizer)
        >>> for x in manager.iterations([torch.zeros(1, 1), torch.ones(1, 1)]):
        ...     optimizer.zero_grad()
        ...     loss = model(x).square().mean()
        ...     loss.backward()
        ...     optimizer.step()
        ...     pte.report({"train/loss": loss})
        >>> manager.iteration, manager.epoch, manager.is_ended
        (4, 2, True)
    """

    measured_keys: frozenset[str] = frozenset()

    @refuse_names(**MANAGER_NAMES)
    @check_positions("models", "max_epochs", "extensions")
    @refuse_unknown()
    def __init__(
        self,
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
        limit = training_limit(max_epochs, max_iterations, stop_trigger, type(self).__name__)
        check_directory("out_dir", out_dir)
        check_extensions(extensions)
        self.raw_models: Mapping[str, nn.Module] = stateful_by_name("models", models)
        self.models: Mapping[str, nn.Module] = transform_models(self.raw_models, transform_model)
        self.optimizers: Mapping[str, optim.Optimizer] = optimizers_by_name({} if optimizers is None else optimizers)
        self.max_epochs = math.inf if max_epochs is None else max_epochs
        self.world = World.current()
        self.updater = Progress(iters_per_epoch)
        objects = state_objects_by_name({} if state_objects is None else state_objects)
        self.loaders = LoaderRegistry(objects.values())
        self.reporter = build_reporter(self.models, self.raw_models)
        self.observation: Observation = {}
        self._given = GivenValues(names_by_id({"models": self.models, "optimizers": self.optimizers}))
        self._stop = StopCondition(None if stop_trigger is None else get_trigger(stop_trigger), limit)
        self._extensions = ExtensionRegistry(self._given, self._stop.trigger, self.world.rank)
        options = OptimizerOptions(self.optimizers)
        self._lifecycle = Lifecycle(self, self._extensions, self._stop, options, self._given)
        self._iteration_scope = IterationScope(self, self._lifecycle, self._extensions, self._stop, self._on_stop)
        self._data_loop = DataLoop(self, self._iteration_scope, self._stop)
        self.run = Run(
            out_dir,
            sinks=("json",) if sinks is None else sinks,
            params=params,
            tags=tags,
            name=run_name,
            group=group,
            close_timeout=close_timeout,
            rank=self.world.rank,
            world_size=self.world.size,
        )
        self.run.hold()
        self.run.before_checkpoints = self._iteration_scope.complete_in_own_thread
        for extension in extensions:
            self.extend(extension)
        self.run.current_step = self.updater.current_step
        if self.world.rank == 0:
            self.loaders.record_first_batch = self._record_first_batch
        self._state = self._make_state(objects, options)

    @property
    def stop_trigger(self) -> bool:
        """Whether the training should stop, as decided by the stop trigger after the last iteration.

        Outside an iteration, reading this property ends the last iteration, and the run if the training should stop.
        """
        if self._stop.should_stop:
            self._iteration_scope.complete()
        else:
            self._iteration_scope.complete_in_own_thread()
        self._data_loop.ends_iterations = True
        return self._stop.should_stop

    @property
    def is_ended(self) -> bool:
        """Whether the run has ended, because the training stopped, was closed, or failed."""
        if self._stop.should_stop:
            self._iteration_scope.complete()
        return self._lifecycle.is_ended

    @property
    def out(self) -> str:
        """Path of the run directory."""
        return str(self.run.directory)

    def extend(
        self,
        extension: Callable[..., Any] | ExtensionEntry,
        name: str | None = None,
        trigger: TriggerLike = None,
        priority: int | None = None,
        *,
        call_before_training: bool | None = None,
    ) -> None:
        """Register an extension before the first iteration.

        Args:
            extension: An extension, a function of the manager, or an :class:`ExtensionEntry`.
            name: Name of the extension. Defaults to its own name. If the name is in use, a number is appended.
            trigger: Trigger that decides when the extension runs. Defaults to ``extension.trigger``.
            priority: Position in the order of an iteration, highest first. Defaults to ``extension.priority``.
            call_before_training: Whether the extension also runs once before the training, but not again after a
                resume. Defaults to False.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the unit or the period of the trigger is invalid, or the extension cannot run here.
            RuntimeError: If the training has already started or ended.
        """
        self._lifecycle.check_extendable()
        entry = extension if isinstance(extension, ExtensionEntry) else ExtensionEntry(extension)
        entry.extension.check(self)
        self._extensions.add(entry.replace(name, priority, trigger, call_before_training))

    def get_extension(self, name: str) -> Extension:
        """Return the extension registered under a name.

        Args:
            name: Name of the extension.

        Raises:
            ValueError: If no extension has this name.
        """
        return self._extensions.get(name)

    def close(self, status: Status | None = None) -> None:
        """End the training and its run. Has no effect if the training has ended.

        Args:
            status: Status of the run. Defaults to ``"FINISHED"``.
        """
        self._lifecycle.finish(status=status)

    def __enter__(self) -> ExtensionsManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._lifecycle.fail(error)

    # -- for front ends ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the training before the first batch of a loop.

        The random state of a restored snapshot is restored again, so that random numbers drawn since the resume have
        no effect. Has no effect on the extensions if the training has started or ended.
        """
        lifecycle = self._lifecycle
        if not lifecycle.is_ended:
            lifecycle.open()
            self._data_loop.align_epochs()
            if lifecycle.phase is Phase.OPEN and not self.stop_trigger:
                lifecycle.start()
        self.loaders.begin()

    def fail(self, error: Exception) -> None:
        """End a training that has started after an exception in its loader."""
        if self._lifecycle.is_started:
            self._lifecycle.fail(error)

    def check_data(self) -> None:
        """Check the position in the data before the first iteration."""
        self._data_loop.check_position()

    def _on_stop(self) -> None:
        """Handle the end of the iteration after which the training should stop."""
        self.close()

    def _record_first_batch(self, loader: str, digest: BatchDigest) -> None:
        self.run.log_first_batch(self.iteration, loader, digest)
