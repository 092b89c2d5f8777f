"""Checks of the arguments of a manager, and the objects built from them."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, ParamSpec

from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from pte_tracking._distributed.wrappers import named_submodules, unwrap
from pte_tracking._interface.extension import TriggerLike
from pte_tracking._snapshots.dictionary_state import StatefulDictionary
from pte_tracking._snapshots.generator_state import StatefulGenerator, is_generator
from pte_tracking._snapshots.plain_state import to_plain
from pte_tracking._store.printable import describe_value
from pte_tracking.reporter import Reporter
from pte_tracking.triggers import IntervalTrigger

_logger = logging.getLogger("pte_tracking")

_P = ParamSpec("_P")
_STATE_METHODS = ("state_dict", "load_state_dict")


def check_positions(*names: str) -> Callable[[Callable[_P, None]], Callable[_P, None]]:
    """Return a decorator of ``__init__`` that checks the positional arguments of a front end.

    In pytorch-pfn-extras, the optimizers are a positional argument before the number of epochs. Python itself reports
    only the number of arguments, or an argument that is passed twice.

    Args:
        names: Names of the positional arguments, among them ``"max_epochs"``.
    """
    position = names.index("max_epochs") + 1  # after self

    def decorate(init: Callable[_P, None]) -> Callable[_P, None]:
        @functools.wraps(init)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> None:
            class_name = type(args[0]).__name__
            if len(args) > position and args[position] is not None:
                check_max_epochs(args[position], class_name)
            if len(args) > len(names) + 1:
                raise TypeError(
                    f"{class_name}: expected at most {len(names)} positional arguments ({', '.join(names)}), got "
                    f"{len(args) - 1}. Pass the others by name, such as optimizers=optimizer, "
                    "iters_per_epoch=len(loader), or out_dir='result'."
                )
            init(*args, **kwargs)

        return checked

    return decorate


def check_extensions(extensions: object) -> None:
    """Check that the extensions can be iterated in a fixed order.

    Args:
        extensions: The argument of the front end.

    Raises:
        TypeError: If they cannot be iterated, or have no order or are named.
    """
    if isinstance(extensions, Set | Mapping):
        # Extensions of equal priority run in the order of the list, which is another one in each process for a set.
        raise TypeError(
            f"extensions: expected a list, got a {type(extensions).__name__}. Write [...] in place of {{...}}, and "
            "name an extension with ExtensionEntry(extension, name=...)."
        )
    if not isinstance(extensions, Iterable):
        raise TypeError(f"extensions: expected a list of extensions, got {describe_value(extensions)}")


def check_max_epochs(max_epochs: object, class_name: str) -> None:
    """Check the number of epochs.

    Args:
        max_epochs: The argument of the front end.
        class_name: The name of the front end, for the message.

    Raises:
        TypeError: If ``max_epochs`` is not a number.
        ValueError: If ``max_epochs`` is not positive.
    """
    if isinstance(max_epochs, bool) or not isinstance(max_epochs, int | float):
        raise TypeError(
            f"max_epochs: expected a number, got {describe_value(max_epochs)}. The argument order is "
            f"{class_name}({'engine, ' if 'Ignite' in class_name else ''}models, max_epochs, extensions, "
            "optimizers=...)."
        )
    if not max_epochs > 0:
        raise ValueError(f"max_epochs: expected a positive number, got {max_epochs}")


def training_limit(
    max_epochs: float | None, max_iterations: int | None, stop_trigger: TriggerLike, class_name: str
) -> IntervalTrigger | None:
    """Return the length of a training that its stop trigger does not give.

    Args:
        max_epochs: The argument of the front end.
        max_iterations: The argument of the front end.
        stop_trigger: The argument of the front end.
        class_name: The name of the front end, for the messages.

    Returns:
        The length. None if only the stop trigger ends the training.

    Raises:
        TypeError: If an argument has the wrong type, or the training has no length and no stop trigger.
        ValueError: If an argument is not positive, or both lengths are given.
    """
    if max_epochs is not None:
        check_max_epochs(max_epochs, class_name)
    if max_iterations is None:
        if max_epochs is not None and not math.isinf(max_epochs):
            return IntervalTrigger(max_epochs, "epoch")
        if stop_trigger is None:
            raise TypeError(
                f"{class_name}: the length of the training is missing. Pass max_epochs=, max_iterations=, or "
                "stop_trigger=."
            )
        return None
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int):
        raise TypeError(f"max_iterations: expected an integer, got {describe_value(max_iterations)}.")
    if max_iterations < 1:
        raise ValueError(f"max_iterations: expected a positive number, got {max_iterations}")
    if max_epochs is not None:
        raise ValueError(
            f"max_iterations: got {max_iterations} together with max_epochs={max_epochs}. Pass one of them."
        )
    return IntervalTrigger(max_iterations, "iteration")


def stateful_by_name(argument: str, value: Any) -> dict[str, Any]:
    """Return objects with a state by name. A single object gets the name ``"main"``.

    Args:
        argument: The name of the argument, for the message.
        value: An object with ``state_dict()`` and ``load_state_dict()``, or a mapping of such objects.

    Raises:
        TypeError: If a name is not a string, or an object has no state.
    """
    expected = "an object with state_dict() and load_state_dict(), or a dictionary of such objects by name"
    return _by_name(argument, value, _STATE_METHODS, expected)


def transform_models(
    models: Mapping[str, nn.Module], transform: Callable[[str, nn.Module], nn.Module] | None
) -> dict[str, nn.Module]:
    """Return the models for extensions and snapshots by name.

    Args:
        models: The models that were passed to the manager.
        transform: The argument ``transform_model`` of the front end.

    Raises:
        TypeError: If the function returns an object without a state.
    """
    transform = transform or (lambda name, model: unwrap(model))
    return stateful_by_name("transform_model", {name: transform(name, model) for name, model in models.items()})


def state_objects_by_name(value: Any) -> dict[str, Any]:
    """Return state objects by name. A random generator or a dictionary of values gets the methods of a state object.

    Args:
        value: An object with ``state_dict()`` and ``load_state_dict()``, a generator of torch, NumPy, or Python, or a
            mapping of such objects and of dictionaries of values.

    Raises:
        TypeError: If a name is not a string, an object has no state, or a dictionary contains anything else than
            tensors and plain values.
    """
    if isinstance(value, Mapping):
        adapted: Any = {name: _with_state(f"state_objects/{name}", item) for name, item in value.items()}
    else:
        adapted = StatefulGenerator(value) if is_generator(value) else value
    expected = "objects by name, each with state_dict() and load_state_dict(), a generator, or a dictionary of values"
    return _by_name("state_objects", adapted, _STATE_METHODS, expected)


def optimizers_by_name(value: Any) -> dict[str, Any]:
    """Return optimizers by name. A single optimizer gets the name ``"main"``.

    An object without ``load_state_dict()`` is accepted and reported, because a resume cannot restore it.

    Args:
        value: An object with ``step()`` and ``state_dict()``, or a mapping of such objects.

    Raises:
        TypeError: If a name is not a string, or an object has no ``step()`` or no state.
    """
    expected = "an optimizer with step() and state_dict(), or a dictionary of optimizers by name"
    by_name = _by_name("optimizers", value, ("step", "state_dict"), expected)
    for name, item in by_name.items():
        if isinstance(item, LRScheduler):
            raise TypeError(
                f"optimizers: expected {expected}, got the scheduler {type(item).__name__} as {name!r}. Pass the "
                "optimizer, and add extensions.LRScheduler(scheduler)."
            )
        if not hasattr(item, "load_state_dict"):
            _logger.warning(
                "optimizers: %r (%s) has no load_state_dict(), so a resume does not restore its state. Add this "
                "method to resume exactly.",
                name,
                type(item).__name__,
            )
    return by_name


def names_by_id(objects: Mapping[str, Mapping[str, object]]) -> dict[int, str]:
    """Return the labels of objects, such as ``"optimizers/main"``, by ``id()``.

    Args:
        objects: The objects by kind and name.
    """
    return {id(item): f"{kind}/{name}" for kind, by_name in objects.items() for name, item in by_name.items()}


def build_reporter(models: Mapping[str, nn.Module], raw_models: Mapping[str, nn.Module]) -> Reporter:
    """Return a reporter whose observers are the models and their submodules, as ``main`` and ``main/encoder/0``.

    Args:
        models: The models that extensions see.
        raw_models: The models that were passed to the manager, which may be wrapped.
    """
    reporter = Reporter()
    for name, model in raw_models.items():
        reporter.add_observer(name, model)
    for name, model in models.items():
        reporter.add_observers("", named_submodules(name, model))
    return reporter


def _by_name(argument: str, value: Any, methods: tuple[str, ...], expected: str) -> dict[str, Any]:
    by_name = dict(value) if isinstance(value, Mapping) else {"main": value}
    for name, item in by_name.items():
        if not isinstance(name, str) or not _has_methods(item, *methods):
            raise TypeError(f"{argument}: expected {expected}, got {name!r}: {describe_value(item)}")
    return by_name


def _with_state(position: str, item: object) -> object:
    if is_generator(item):
        return StatefulGenerator(item)
    if isinstance(item, dict) and not hasattr(item, "state_dict"):
        to_plain(item, position)
        return StatefulDictionary(item)
    return item


def _has_methods(item: object, *names: str) -> bool:
    return not isinstance(item, type) and all(hasattr(item, name) for name in names)
