"""What an extension is: something that a manager calls during training when its trigger fires.

Also what it is handed there: :class:`Manager` names all that extensions and triggers may know of a training, the same
in every front end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from torch import nn, optim

from pte_tracking._distributed.world import World
from pte_tracking._interface.progress import Progress
from pte_tracking._runs.run import Run
from pte_tracking.reporter import Observation, Reporter

# The order within an iteration, highest first; equal ones in order of registration.
PRIORITY_WRITER = 300
PRIORITY_EDITOR = 200
PRIORITY_READER = 100
#: This and all below it run last, when every trigger, the stop trigger included, has decided about the iteration.
PRIORITY_SNAPSHOT = -100


class Manager(Protocol):
    """What extensions and triggers may know of the training."""

    @property
    def iteration(self) -> int:
        """Iterations done."""

    @property
    def epoch(self) -> int:
        """Whole epochs done."""

    @property
    def epoch_detail(self) -> float:
        """Epochs done, with the fraction of the one under way."""

    @property
    def elapsed_time(self) -> float:
        """Seconds of training, those before a resume included."""

    @property
    def iters_per_epoch(self) -> int:
        """Iterations in one epoch.

        Raises:
            RuntimeError: Nobody has told yet.
        """

    @property
    def max_epochs(self) -> float:
        """The number of epochs that the training was planned for."""

    @property
    def is_before_training(self) -> bool:
        """Whether no iteration was done yet."""

    @property
    def stop_trigger(self) -> bool:
        """Whether the training is over."""

    @property
    def training_length(self) -> tuple[float, str] | None:
        """How long it will be at most, such as ``(20, "epoch")``; None if that cannot be known."""

    @property
    def updater(self) -> Progress:
        """The same progress, where Chainer had it."""

    @property
    def observation(self) -> Observation:
        """What was reported in this iteration."""

    @property
    def reporter(self) -> Reporter:
        """Takes what is reported; its observers are the models and their parts."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The models by name."""

    @property
    def raw_models(self) -> Mapping[str, nn.Module]:
        """The models as they were given."""

    @property
    def optimizers(self) -> Mapping[str, optim.Optimizer]:
        """The optimizers by name."""

    @property
    def world(self) -> World:
        """The processes that train together; an extension that shows or writes something does so on rank 0 alone."""

    @property
    def out(self) -> str:
        """The run's directory."""

    @property
    def run(self) -> Run:
        """The record of this training: figures, params, tags and more go there."""

    def get_extension(self, name: str) -> Extension:
        """The extension that was registered under a name."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state of the training."""


#: ``(2, "epoch")``, ``(100, "iteration")``, a trigger, any function that takes the manager, or None: never.
TriggerLike: TypeAlias = tuple[float, str] | Callable[[Manager], bool] | None


class Extension:
    """Base class of extensions.

    A subclass overrides ``__call__`` and what else it needs; the class attributes are the defaults of
    ``manager.extend()``. Any function that takes the manager is an extension too; see :func:`make_extension`.

    Attributes:
        trigger: When it runs.
        priority: Where in the order of an iteration.
        name: The name it goes by in its manager; set when it is registered.
        needs_model_state: It looks at the models' weights (for front ends whose models are not always at hand).
        rank_zero_only: It only shows or writes something, and is there on rank 0 alone: never initialized or called on
            others.
    """

    trigger: TriggerLike = (1, "iteration")
    priority: int = PRIORITY_READER
    name: str | None = None
    needs_model_state: bool = False
    rank_zero_only: bool = False

    def is_urgent(self, manager: Manager) -> bool:
        """Whether it has to run now, whatever its trigger says; asked of those with the priority of snapshots only.

        All ranks have to give the same answer.
        """
        return False

    @property
    def default_name(self) -> str:
        """What it is called when nobody gave it a name."""
        return type(self).__name__

    def check(self, manager: Manager) -> None:
        """Called when the extension is registered: raises ValueError if the manager lacks what it needs."""

    def initialize(self, manager: Manager) -> None:
        """Called once, before the first iteration and after a resume has restored the state."""

    def __call__(self, manager: Manager) -> Any:
        """Called after the update of each iteration for which the trigger fires."""
        raise NotImplementedError(
            f"{type(self).__name__} has no __call__(self, manager); an extension does its work there"
        )

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        """Called when the training fails, before :meth:`finalize`."""

    def finalize(self, manager: Manager) -> None:
        """Called once, at the end of the training, failed or not."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state_dict` returned."""


class FunctionExtension(Extension):
    """Any callable as an extension.

    What the callable itself has of an extension's attributes (``trigger``, ``priority``, ``initialize``, ``state_dict``
    and so on) is used.
    """

    default_name = ""  # set for each, not computed as in the base class

    _OPTIONAL = (
        *("trigger", "priority", "rank_zero_only", "initialize", "on_error", "finalize"),
        *("state_dict", "load_state_dict"),
    )

    def __init__(self, function: Callable[[Manager], Any]) -> None:
        self._function = function
        names = (getattr(function, attribute, None) for attribute in ("name", "default_name", "__name__"))
        self.default_name = next((name for name in names if isinstance(name, str) and name), type(function).__name__)
        for name in self._OPTIONAL:
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def __call__(self, manager: Manager) -> Any:
        return self._function(manager)


def make_extension(
    trigger: TriggerLike = Extension.trigger,
    default_name: str | None = None,
    priority: int = Extension.priority,
    finalizer: Callable[[Manager], Any] | None = None,
    initializer: Callable[[Manager], Any] | None = None,
    on_error: Callable[[Manager, Exception, TracebackType | None], Any] | None = None,
) -> Callable[[Callable[[Manager], Any]], Extension]:
    """Decorator that makes an extension of a function that takes the manager.

    Args:
        trigger: When it runs.
        default_name: What it is called when nobody gives it a name; the function's own name if None.
        priority: Where in the order of an iteration.
        finalizer: Called once at the end.
        initializer: Called once before the first iteration.
        on_error: Called when the training fails, with the exception and its traceback.
    """

    def decorate(function: Callable[[Manager], Any]) -> Extension:
        if not callable(function):  # the manager: a decorator without parentheses was registered as an extension
            raise TypeError(
                "make_extension: expected a function that takes the manager, got "
                f"{function!r}; with nothing to say, write @make_extension() with parentheses"
            )
        extension = FunctionExtension(function)
        extension.trigger, extension.priority = trigger, priority
        hooks = {"default_name": default_name, "finalize": finalizer, "initialize": initializer, "on_error": on_error}
        for name, hook in hooks.items():
            if hook is not None:
                setattr(extension, name, hook)
        return extension

    return decorate
