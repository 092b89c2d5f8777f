"""Extensions in your own training loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from types import TracebackType
from typing import Any, TypeVar

from torch import nn, optim

from pte_tracking._data.loader import LoaderRegistry
from pte_tracking._distributed.world import World
from pte_tracking._distributed.wrappers import unwrap
from pte_tracking._engine.construction import build_reporter, check_max_epochs, stateful_by_name
from pte_tracking._engine.iteration import IterationScope
from pte_tracking._engine.lifecycle import Lifecycle, Phase
from pte_tracking._engine.registry import ExtensionEntry, ExtensionRegistry
from pte_tracking._engine.resuming import resume_training
from pte_tracking._engine.state import StateObject, TrainingState
from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.extension import Extension, TriggerLike
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run
from pte_tracking._store.events import Checkpoint, Status
from pte_tracking.reporter import Observation
from pte_tracking.sinks import Sink
from pte_tracking.triggers import get_trigger

_Batch = TypeVar("_Batch")


class ExtensionsManager:
    """Runs extensions around the iterations of a training loop, and keeps the record of the run.

    In each iteration, after the user's update: the extensions run, by priority, each when its trigger fires; the stop
    trigger decides; and then the snapshots are taken, of a state in which every trigger has decided.

    Args:
        models: A module, or modules by name.
        max_epochs: Epochs after which the training stops, unless ``stop_trigger`` says otherwise.
        extensions: The extensions; more can be added by :meth:`extend`.
        optimizers: An optimizer, or optimizers by name.
        iters_per_epoch: Iterations in one epoch.
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

    Under ``torch.distributed`` every rank makes the same manager and the same calls. Rank 0 writes the one run.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument's value cannot be.
    """

    def __init__(
        self,
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
        check_max_epochs(max_epochs, type(self).__name__)
        self.raw_models: Mapping[str, nn.Module] = stateful_by_name("models", models)
        transform = transform_model or (lambda name, model: unwrap(model))
        self.models: Mapping[str, nn.Module] = {name: transform(name, model) for name, model in self.raw_models.items()}
        self.optimizers: Mapping[str, optim.Optimizer] = stateful_by_name("optimizers", optimizers or {})
        self.max_epochs = max_epochs
        #: The processes that train together.
        self.world = World.current()
        self.updater = Progress(iters_per_epoch)
        self.loaders = LoaderRegistry()
        self.reporter = build_reporter(self.models, self.raw_models)
        self.observation: Observation = {}
        self._extensions = ExtensionRegistry(self.world.rank)
        if not isinstance(extensions, Iterable):
            raise TypeError(f"extensions: expected a list of extensions, got {extensions!r}")
        self._stop = StopCondition(get_trigger((max_epochs, "epoch") if stop_trigger is None else stop_trigger))
        self._lifecycle = Lifecycle(self, self._extensions, self._stop, needs_log_report=bool(sinks))
        self._iteration_scope = IterationScope(self, self._lifecycle, self._extensions, self._stop, self._on_stop)
        for extension in extensions:
            self.extend(extension)
        self.run = Run(
            out_dir,
            sinks=("json",) if sinks is None else sinks,
            params=params,
            tags=tags,
            name=run_name,
            close_timeout=close_timeout,
            rank=self.world.rank,
            world_size=self.world.size,
        )
        self._state = TrainingState(
            self.models,
            self.optimizers,
            stateful_by_name("state_objects", state_objects or {}),
            extensions=self._extensions,
            progress=self.updater,
            stop=self._stop,
            loaders=self.loaders,
            run=self.run,
            world=self.world,
        )

    # -- what extensions see -------------------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.updater.iteration

    @property
    def iters_per_epoch(self) -> int:
        """Iterations in one epoch; RuntimeError if nobody has told yet."""
        return self.updater.iters_per_epoch

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.updater.epoch

    @property
    def epoch_detail(self) -> float:
        """Epochs done, with the fraction of the one under way."""
        return self.updater.epoch_detail

    @property
    def elapsed_time(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.updater.elapsed_time

    @property
    def is_before_training(self) -> bool:
        """Whether no iteration was done yet."""
        return self.updater.iteration == 0

    @property
    def stop_trigger(self) -> bool:
        """Whether the training is over; the answer that the stop trigger gave after the last iteration."""
        return self._stop.should_stop

    @property
    def is_ended(self) -> bool:
        """Whether the run has ended: the training is over, or was closed, or has failed."""
        return self._lifecycle.is_ended

    @property
    def training_length(self) -> tuple[float, str] | None:
        """How long the training will be at most, such as ``(20, "epoch")``; None if that cannot be known."""
        return self._stop.trigger.training_length

    @property
    def out(self) -> str:
        """The run's directory."""
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
        """Registers an extension; what is not given is taken from the extension itself.

        Args:
            extension: An extension, or any function that takes the manager.
            name: What it is called; a number is added where the name is taken.
            trigger: When it runs.
            priority: Where in the order of an iteration, highest first.
            call_before_training: Run it once before the first iteration, too.

        Raises:
            TypeError: It is no extension, or the trigger no trigger.
            ValueError: The trigger's unit or period is wrong.
            RuntimeError: The training has begun.
        """
        self._lifecycle.check_extendable()
        entry = extension if isinstance(extension, ExtensionEntry) else ExtensionEntry(extension)
        entry.extension.check(self)
        self._extensions.add(entry.replace(name, priority, trigger, call_before_training))

    def get_extension(self, name: str) -> Extension:
        """The extension that was registered under a name; ValueError if there is none."""
        return self._extensions.get(name)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run_iteration(
        self,
        *,
        epoch: int | None = None,
        iteration: int | None = None,
        epoch_size: int | None = None,
        step_optimizers: Sequence[str] = (),
    ) -> IterationScope:
        """One iteration, as a ``with`` block around the update.

        All arguments may be left out: the manager counts by itself.

        Args:
            epoch: The epoch that the iteration belongs to, from 0.
            iteration: The number of this iteration, from 0 and over all epochs.
            epoch_size: Iterations in one epoch, where the manager was not told.
            step_optimizers: Optimizers whose ``zero_grad()`` is called before the block and ``step()`` after it.

        Raises:
            RuntimeError: The training is over.
            ValueError: The numbers contradict each other, or what the manager has counted, or there is no such
                optimizer.
        """
        if epoch_size is not None:
            self.updater.set_iters_per_epoch("epoch_size", epoch_size)
        if iteration is not None:
            self.updater.set_position(iteration, epoch)
        if step_optimizers and not self.optimizers.keys() >= set(step_optimizers):
            raise ValueError(
                f"step_optimizers: expected a list of names out of {', '.join(self.optimizers) or 'none'}, "
                f"got {step_optimizers!r}"
            )
        self._iteration_scope.step_optimizers = step_optimizers
        return self._iteration_scope

    def batches(self, loader: Iterable[_Batch]) -> Iterator[_Batch]:
        """The batches of a loader, epoch after epoch, until the training is over; then the run ends.

        Args:
            loader: A DataLoader or any other iterable that can be iterated over again and again.

        Raises:
            RuntimeError: A whole epoch went by without ``run_iteration()``.
        """
        if not self.updater.is_epoch_length_set and isinstance(loader, Sized):
            self.updater.set_iters_per_epoch("len(loader)", len(loader))
        self.start()
        while not self._stop.should_stop:
            before = self.updater.iteration
            for batch in self.loaders.register(loader):
                yield batch
                if self._stop.should_stop:
                    break
            if self.updater.iteration == before:
                raise RuntimeError(
                    "batches(): a whole epoch went by without an iteration; is the loader empty (an iterator is, after "
                    "one pass: give what it was made from), or 'with manager.run_iteration():' missing in the loop?"
                )
        self.close()

    def close(self, status: Status | None = None) -> None:
        """Ends the training and its run; called again, does nothing.

        Args:
            status: How it ended; by default FINISHED.
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

    # -- the state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state of the training: tensors and plain values only.

        Raises:
            TypeError: Something else is in the state of a part; its place is named.
        """
        return self._state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, in the run that it was taken in; before the first iteration.

        Raises:
            RuntimeError: The training has begun.
            ValueError: It is the state of other models, optimizers, extensions or state objects: each is named, and
                nothing was restored.
        """
        self._lifecycle.begin_restore("load_state_dict()")
        self._state.load_state_dict(state)

    def resume(self, source: str | os.PathLike[str] = "latest") -> Checkpoint | None:
        """Goes on from a snapshot as if the training had never stopped; before the first iteration.

        Args:
            source: ``"latest"``: the newest intact snapshot of the run in the directory. ``"best"``: the best, as
                ``snapshot(keep_best=...)`` says. A file. Or a tracked checkpoint, ``"runs:/<run id>"`` or
                ``"models:/<model id>"`` with MLflow, also on another machine.

        Returns:
            What was resumed from; None if there is no snapshot yet. The run in the directory then begins again.

        Raises:
            SnapshotError: The file, or what was fetched, is damaged or no snapshot.
            LookupError: There is no such checkpoint.
            RuntimeError: The training has begun.
            ValueError: The snapshot is that of another training.
        """
        self._lifecycle.begin_restore("resume()")
        return resume_training(source, self._extensions, self._state, self.run, self.world)

    # -- inside --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A loop of ours begins, before its first batch; what was drawn at random since a resume does not count."""
        lifecycle = self._lifecycle
        if not lifecycle.is_ended:
            lifecycle.open()
            if lifecycle.phase is Phase.OPEN and not self.stop_trigger:
                lifecycle.start()
        self.loaders.begin()

    def _on_stop(self) -> None:
        """The stop trigger has fired."""
        self.close()
