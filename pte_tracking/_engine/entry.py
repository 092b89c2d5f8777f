"""Entry of an extension: the extension with its settings in one training."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, Protocol

from pte_tracking._engine.unrecorded import LateValues
from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._interface.function_extension import FunctionExtension
from pte_tracking._store.argument_names import refused_call
from pte_tracking._store.printable import describe_value
from pte_tracking.reporter import Observation
from pte_tracking.triggers import Trigger, get_trigger
from pte_tracking.triggers.interval import fires_each_iteration


class ObservedManager(Manager, Protocol):
    """Manager whose observation is watched."""

    observation: Observation
    measured_keys: frozenset[str]


class ExtensionEntry:
    """Extension with its settings, for the list of extensions of a front end.

    Args:
        extension: An extension, or a function of the manager.
        name: Name of the extension. Defaults to ``extension.name``, or else to ``extension.default_name``.
        priority: Position in the order of an iteration, highest first. Defaults to ``extension.priority``.
        trigger: Trigger that decides when the extension runs. Defaults to ``extension.trigger``.
        call_before_training: Whether the extension also runs once before the training, but not again after a
            resume. Defaults to False.

    Attributes:
        extension: The extension.
        name: Name of the extension.
        priority: Priority of the extension.
        trigger: Trigger of the extension.
        call_before_training: Whether the extension also runs once before the training.

    Raises:
        TypeError: If the extension is neither an extension nor a callable, or another argument has the wrong type.
        ValueError: If the unit or the period of the trigger is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> def print_iteration(manager):
        ...     print(manager.iteration)
        >>> entry = pte.ExtensionEntry(print_iteration, trigger=(2, "iteration"), call_before_training=True)
        >>> manager = pte.ExtensionsManager({}, max_iterations=4, extensions=[entry], sinks=[])
        >>> for _ in manager.iterations():
        ...     pass
        0
        2
        4
    """

    __slots__ = (
        *("call_before_training", "extension", "is_watched", "late_values", "measures", "name", "priority"),
        *("is_always_due", "run", "runs_here", "trigger"),
    )

    def __init__(
        self,
        extension: Callable[[Manager], Any],
        *,
        name: str | None = None,
        priority: int | None = None,
        trigger: TriggerLike = None,
        call_before_training: bool = False,
    ) -> None:
        #: Warning about the values that the extension reports after all LogReports ran; else None.
        self.late_values: LateValues | None = None
        self.extension = _as_extension(extension)
        self._set_names(
            name or self.extension.name or self.extension.default_name,
            self.extension.priority if priority is None else priority,
        )
        own_trigger = get_trigger(self.extension.trigger)
        if trigger is None and not fires_each_iteration(own_trigger):
            trigger = own_trigger  # A subclass or the user may set the attribute of an extension with an inner trigger.
        self._set_trigger(own_trigger if trigger is None else trigger, is_given=trigger is not None)
        self.call_before_training = call_before_training
        # The trigger is evaluated on all ranks, also where the extension does not run: ranks may decide together.
        self.runs_here = True

    def _set_names(self, name: object, priority: object) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {name!r}. To set the trigger, pass trigger={name!r}.")
        if not isinstance(priority, int):
            raise TypeError(
                f"priority: expected an integer, such as PRIORITY_READER, got {priority!r} "
                f"of type {type(priority).__name__}"
            )
        self.name, self.priority = name, priority

    def _set_trigger(self, trigger: TriggerLike, *, is_given: bool = True) -> None:
        is_taken = is_given and self.extension.take_trigger(trigger)
        self.trigger: Trigger = get_trigger(Extension.trigger if is_taken else trigger)
        self.is_always_due = fires_each_iteration(self.trigger)
        #: Whether the extension reports more rarely than in each iteration.
        self.measures = not (self.is_always_due and self.extension.reports_each_iteration)
        #: Whether to call the extension by :meth:`call`, which notes the keys that it reports.
        self.is_watched = self.measures

    def watch(self, late_values: LateValues) -> None:
        """Warn about the values that the extension reports, because it runs after all LogReports."""
        self.late_values, self.is_watched = late_values, True

    def prepare(self) -> None:
        """Choose the function for :attr:`run`, which each iteration calls, once the settings are final."""
        self.run: Callable[[ObservedManager], object] = self._run_if_due
        if self.is_always_due and self.runs_here:
            extension = self.extension
            function = extension.function if type(extension) is FunctionExtension else extension.__call__
            self.run = self.call if self.is_watched else function

    def _run_if_due(self, manager: ObservedManager) -> None:
        # The trigger may keep a state, so it is evaluated on all ranks.
        if (self.is_always_due or self.trigger.evaluate(manager)) and self.runs_here:
            (self.call if self.is_watched else self.extension)(manager)

    def call(self, manager: ObservedManager) -> None:
        """Call the extension, and note the keys that it reports.

        Args:
            manager: The manager. Keys of values that are measured at this step are added to its ``measured_keys``.
        """
        before = dict(manager.observation)
        self.extension(manager)
        # By identity: a value that is reported again is another object, also if it is equal.
        reported = {key: None for key, value in manager.observation.items() if before.get(key) is not value}
        if reported and self.measures:
            manager.measured_keys = manager.measured_keys.union(reported)
        if reported and self.late_values is not None:
            self.late_values.warn(reported, self.name)

    def replace(
        self, name: str | None, priority: int | None, trigger: TriggerLike, call_before_training: bool | None
    ) -> ExtensionEntry:
        """Return an entry of the same extension with other settings.

        Args:
            name: Name of the extension; None to keep it.
            priority: Priority of the extension; None to keep it.
            trigger: Trigger of the extension; None to keep it.
            call_before_training: Whether the extension also runs once before the training; None to keep it.
        """
        replaced = copy.copy(self)
        replaced._set_names(name or self.name, self.priority if priority is None else priority)
        if trigger is not None:
            replaced._set_trigger(trigger)
        if call_before_training is not None:
            replaced.call_before_training = call_before_training
        return replaced


def _as_extension(extension: object) -> Extension:
    if isinstance(extension, FunctionExtension):
        _check_function(extension.function)
    if isinstance(extension, Extension):
        return extension
    if isinstance(extension, type):
        raise TypeError(
            f"extension: expected an instance, got the class {extension.__name__}. Write {extension.__name__}()."
        )
    if isinstance(extension, Trigger):
        name = type(extension).__name__
        raise TypeError(
            f"extension: expected an Extension or a function that takes the manager, got the trigger {name}. Pass a "
            f"trigger that ends the training as stop_trigger={name}(...) to the manager, and one that decides when an "
            "extension runs as its trigger=."
        )
    if callable(extension):
        _check_function(extension)
        return FunctionExtension(extension)
    hint = ""
    if isinstance(extension, list) and all(isinstance(item, Extension | ExtensionEntry) for item in extension):
        hint = ". Pass several in one list, such as [extensions.Evaluator(...), *extensions.defaults()]."
    elif isinstance(extension, tuple | list | dict):
        hint = ". Pass a name or a trigger as ExtensionEntry(extension, name=..., trigger=...)."
    raise TypeError(
        f"extension: expected an Extension or a function that takes the manager, got {describe_value(extension)}{hint}"
    )


def _check_function(function: Callable[..., object]) -> None:
    """Check that a call with the manager runs the body of a function."""
    name = getattr(function, "__name__", type(function).__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"extension: expected a function that takes the manager, got the generator {name}(), whose body no call "
            "runs. Use return or pte_tracking.report({...}) in place of yield."
        )
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"extension: expected a function that takes the manager, got async def {name}(). Remove async.")
    if call := refused_call(function, 1):
        raise TypeError(
            f"extension: expected a function of one argument, the manager, got {call}. Bind other arguments with "
            "functools.partial."
        )
