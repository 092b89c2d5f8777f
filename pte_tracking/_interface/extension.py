"""Extension interface: the base class of extensions and the manager that is passed to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

from torch import nn, optim

from pte_tracking._distributed.world import World
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run
from pte_tracking.reporter import Observation, Reporter

# Extensions run in the order of their priorities, highest first; with equal priorities, in order of registration.

#: Priority of extensions that report new values, such as an Evaluator.
PRIORITY_WRITER = 300
#: Priority of extensions that replace values reported in the same iteration, or compute values from them, such as a
#: MicroAverage.
PRIORITY_EDITOR = 200
#: Priority of extensions that report nothing, such as a LogReport. The default.
PRIORITY_READER = 100
#: Priority of snapshots. Extensions with this or a lower priority run last, after all triggers and the stop trigger
#: were evaluated.
PRIORITY_SNAPSHOT = -100


class Manager(Protocol):
    """Interface of the manager for extensions and triggers, identical in every front end.

    Example:
        >>> import pte_tracking as pte
        >>> def print_progress(manager: pte.Manager) -> None:
        ...     print(manager.iteration, manager.epoch_detail, manager.observation["loss"])
        >>> manager = pte.ExtensionsManager({}, 1, [print_progress], iters_per_epoch=2, sinks=[])
        >>> while not manager.stop_trigger:
        ...     with manager.run_iteration():
        ...         pte.report({"loss": 1 / (manager.iteration + 1)})
        1 0.5 1.0
        2 1.0 0.5
    """

    @property
    def iteration(self) -> int:
        """Number of completed iterations."""

    @property
    def epoch(self) -> int:
        """Number of completed epochs.

        Raises:
            RuntimeError: If an iteration is complete, and the epoch length is not set.
        """

    @property
    def epoch_detail(self) -> float:
        """Number of completed epochs, including the fraction of the current epoch.

        Raises:
            RuntimeError: If an iteration is complete, and the epoch length is not set.
        """

    @property
    def elapsed_time(self) -> float:
        """Training time in seconds, including the time before a resume."""

    @property
    def iters_per_epoch(self) -> int:
        """Number of iterations per epoch.

        Raises:
            RuntimeError: If the epoch length is not set.
        """

    @property
    def max_epochs(self) -> float:
        """Number of epochs that the training is planned for."""

    @property
    def is_before_training(self) -> bool:
        """Whether no iteration is completed."""

    @property
    def stop_trigger(self) -> bool:
        """Whether the training should stop."""

    @property
    def training_length(self) -> tuple[float, Unit] | None:
        """Maximum length of the training, such as ``(20, "epoch")``; None if unknown."""

    @property
    def updater(self) -> Progress:
        """Counters ``iteration``, ``epoch``, ``epoch_detail``, and ``is_new_epoch``, under the name in Chainer."""

    @property
    def observation(self) -> Observation:
        """Values reported in the current iteration, by key.

        Each value is an ``int`` or ``float``, a tensor without dimensions on another device, or a deferred value, whose
        function is called when its number is needed. ``float(value)`` returns the number of each.
        """

    @property
    def measured_keys(self) -> frozenset[str]:
        """Keys of those values in the observation that an extension reported that does not report in each iteration.

        Such a value is measured at this step, for example by an Evaluator. The others are reported in each iteration.
        """

    @property
    def reporter(self) -> Reporter:
        """Reporter of the training. Its observers are the models and their submodules."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """Models by name, without wrappers such as ``DistributedDataParallel``."""

    @property
    def raw_models(self) -> Mapping[str, nn.Module]:
        """Models by name, as passed to the front end."""

    @property
    def optimizers(self) -> Mapping[str, optim.Optimizer]:
        """Optimizers by name."""

    @property
    def world(self) -> World:
        """Rank and world size, as ``world.rank`` and ``world.size``. Display and write on rank 0 only.

        ``world.all_reduce_sum(numbers)`` returns a list of the sums of numbers over all ranks, in double precision. All
        ranks call it, with equally many numbers.
        """

    @property
    def out(self) -> str:
        """Path of the run directory."""

    @property
    def run(self) -> Run:
        """Run of the training, for figures, parameters, tags, and other data."""

    def get_extension(self, name: str) -> Extension:
        """Return the extension registered under a name."""

    def state_dict(self) -> dict[str, Any]:
        """Return the complete training state."""


#: Unit of a period.
Unit: TypeAlias = Literal["epoch", "iteration"]
#: ``(2, "epoch")``, ``(100, "iteration")``, a trigger, a function of the manager, or None to never fire.
TriggerLike: TypeAlias = tuple[float, Unit] | Callable[[Manager], bool] | None


class Extension:
    """Base class of extensions.

    A subclass overrides ``__call__`` and any other methods that it needs. Its class attributes are the defaults of
    ``manager.extend()``. A function of the manager can be used as an extension, too; see :func:`make_extension`.

    Attributes:
        trigger: Trigger that decides when the extension runs. Defaults to each iteration.
        priority: Position in the order of an iteration, highest first. ``PRIORITY_WRITER`` for an extension that
            reports new values, ``PRIORITY_EDITOR`` for one that computes values from reported ones, and otherwise
            ``PRIORITY_READER``, the default.
        name: Name of the extension in its manager, set when the extension is registered.
        saves_state: Whether the extension, with ``PRIORITY_SNAPSHOT`` or a lower priority, saves the state of the
            training. It then runs at the end of the iteration, after the code that follows the ``with`` block. Defaults
            to False.
        rank_zero_only: Whether the extension is initialized and called on rank 0 only, because all it does is to
            display or to write. Defaults to False.

    Example:
        >>> import pte_tracking as pte
        >>> class CountIterations(pte.Extension):
        ...     trigger = (2, "iteration")
        ...     def initialize(self, manager):
        ...         self.count = 0
        ...     def __call__(self, manager):
        ...         self.count += 1
        >>> manager = pte.ExtensionsManager({}, 1, [CountIterations()], iters_per_epoch=4, sinks=[])
        >>> while not manager.stop_trigger:
        ...     with manager.run_iteration():
        ...         pass
        >>> manager.get_extension("CountIterations").count
        2
    """

    trigger: TriggerLike = (1, "iteration")
    priority: int = PRIORITY_READER
    name: str | None = None
    saves_state: bool = False
    rank_zero_only: bool = False

    def is_urgent(self, manager: Manager) -> bool:
        """Whether the extension has to run now, independently of its trigger.

        Called in each iteration for extensions with ``PRIORITY_SNAPSHOT`` or a lower priority. All ranks must return
        the same value.

        Args:
            manager: The manager.
        """
        return False

    @property
    def reports_each_iteration(self) -> bool:
        """Whether the extension reports in each iteration in which it runs. Defaults to True.

        Override the property and return False if the extension runs in each iteration, but reports only in some, such
        as at the end of an interval. Each value is then a data point at the step at which it is reported. Otherwise,
        a LogReport with a longer interval averages the values, and the sinks receive only the means.

        The property is read when the extension is registered. An extension whose trigger does not fire in each
        iteration does not need it.
        """
        return True

    @property
    def default_name(self) -> str:
        """Name of the extension if none is passed. Defaults to the name of the class."""
        return type(self).__name__

    def take_trigger(self, trigger: TriggerLike) -> bool:
        """Use a trigger that was given for the extension, if the extension has to run in each iteration.

        An extension that collects values has an inner trigger, which ends an interval. A trigger given by
        ``extend(..., trigger=...)`` or an ``ExtensionEntry`` replaces the inner trigger.

        Args:
            trigger: The trigger.

        Returns:
            Whether the extension uses the trigger itself. False by default.
        """
        return False

    def check(self, manager: Manager) -> None:
        """Check that the manager meets the requirements of the extension; called on registration.

        Args:
            manager: The manager.

        Raises:
            ValueError: If a requirement is not met.
        """

    def initialize(self, manager: Manager) -> None:
        """Prepare the extension; called once before the first iteration, after a resume has restored the state.

        Args:
            manager: The manager.
        """

    def __call__(self, manager: Manager) -> Any:
        """Run the extension; called at the end of each iteration in which the trigger fires.

        The optimizers in ``step_optimizers`` have stepped, and the gradients are still those of this step.

        Args:
            manager: The manager.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(self, manager). Add this method.")

    def on_stop(self, manager: Manager) -> None:
        """Act on the end of the training; called when it should stop, before its last state is saved.

        The extensions of the last iteration have run. A training that is left early, for example with ``break`` or
        ``close()``, does not call this method.

        Args:
            manager: The manager.
        """

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        """Handle a failure of the training; called before :meth:`finalize`.

        Args:
            manager: The manager.
            exc: Exception that the training failed with.
            tb: Traceback of the exception.
        """

    def finalize(self, manager: Manager) -> None:
        """Release resources; called once at the end of the training, including after a failure.

        Args:
            manager: The manager.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in snapshots: tensors and plain values only.

        Snapshots contain the state of each rank. If the training resumes on another number of ranks, each
        :class:`~pte_tracking.reporter.SummaryState` in it, also in lists and dictionaries, is added up by its place,
        and other values are those of rank 0. Save a sum over the ranks in this format, because a plain number would be
        counted on each new rank, or lost.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state returned by :meth:`state_dict`.

        Args:
            state: The state.
        """
