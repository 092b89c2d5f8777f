"""Functions as extensions."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from pte_tracking._interface.extension import Extension, Manager, TriggerLike


class FunctionExtension(Extension):
    """Extension that calls a function or another callable object.

    Attributes and methods of the callable that an extension can have, such as ``trigger``, ``priority``,
    ``initialize()``, and ``state_dict()``, are used.

    Args:
        function: Function of the manager.
    """

    # An attribute of each object in place of the property of the base class.
    default_name = ""

    _OPTIONAL = (
        *("trigger", "priority", "rank_zero_only", "initialize", "on_error", "finalize"),
        *("state_dict", "load_state_dict"),
    )

    def __init__(self, function: Callable[[Manager], Any]) -> None:
        self.function = function
        names = (getattr(function, attribute, None) for attribute in ("name", "default_name", "__name__"))
        self.default_name = next((name for name in names if isinstance(name, str) and name), type(function).__name__)
        for name in self._OPTIONAL:
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def __call__(self, manager: Manager) -> Any:
        return self.function(manager)


def make_extension(
    trigger: TriggerLike = Extension.trigger,
    default_name: str | None = None,
    priority: int = Extension.priority,
    finalizer: Callable[[Manager], Any] | None = None,
    initializer: Callable[[Manager], Any] | None = None,
    on_error: Callable[[Manager, Exception, TracebackType | None], Any] | None = None,
) -> Callable[[Callable[[Manager], Any]], Extension]:
    """Return a decorator that converts a function of the manager into an extension.

    To call the function once before the first iteration, too, and log its values at step 0, pass
    ``ExtensionEntry(function, call_before_training=True)`` to the manager.

    Args:
        trigger: Trigger that decides when the extension runs. Defaults to each iteration.
        default_name: Name of the extension if none is passed. Defaults to the name of the function.
        priority: Position in the order of an iteration, highest first. Defaults to ``PRIORITY_READER``.
        finalizer: Called with the manager once at the end of the training.
        initializer: Called with the manager once before the first iteration.
        on_error: Called with the manager, the exception, and its traceback if the training fails.

    Returns:
        The decorator.

    Raises:
        TypeError: If the decorated object is not callable, as when the decorator is used without parentheses.

    Example:
        >>> import pte_tracking as pte
        >>> @pte.make_extension(trigger=(2, "iteration"))
        ... def print_loss(manager):
        ...     print(manager.iteration, manager.observation["loss"])
        >>> manager = pte.ExtensionsManager({}, 1, [print_loss], iters_per_epoch=4, sinks=[])
        >>> while not manager.stop_trigger:
        ...     with manager.run_iteration():
        ...         pte.report({"loss": 0.5})
        2 0.5
        4 0.5
    """

    def decorate(function: Callable[[Manager], Any]) -> Extension:
        # The manager is passed if a decorator without parentheses was registered as an extension.
        if not callable(function):
            raise TypeError(
                f"make_extension: expected a function that takes the manager, got {function!r}. "
                "Write @make_extension() with parentheses."
            )
        extension = FunctionExtension(function)
        extension.trigger, extension.priority = trigger, priority
        hooks = {"default_name": default_name, "finalize": finalizer, "initialize": initializer, "on_error": on_error}
        for name, hook in hooks.items():
            if hook is not None:
                setattr(extension, name, hook)
        return extension

    return decorate
