"""Checks of the arguments of a manager, and the objects built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pte_tracking._distributed.wrappers import named_submodules
from pte_tracking.reporter import Reporter


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
            f"max_epochs: expected a number, got {max_epochs!r} of type {type(max_epochs).__name__}. The argument "
            f"order is {class_name}(models, max_epochs, extensions, optimizers=...)."
        )
    if not max_epochs > 0:
        raise ValueError(f"max_epochs: expected a positive number, got {max_epochs}")


def stateful_by_name(argument: str, value: Any) -> dict[str, Any]:
    """Return objects with a state by name. A single object gets the name ``"main"``.

    Args:
        argument: The name of the argument, for the message.
        value: An object with ``state_dict()`` and ``load_state_dict()``, or a mapping of such objects.

    Raises:
        TypeError: If a name is not a string, or an object has no state.
    """
    by_name = dict(value) if isinstance(value, Mapping) else {"main": value}
    for name, item in by_name.items():
        if not isinstance(name, str) or not hasattr(item, "state_dict") or not hasattr(item, "load_state_dict"):
            raise TypeError(
                f"{argument}: expected an object with state_dict() and load_state_dict(), or a dictionary of such "
                f"objects by name, got {name!r}: {item!r}"
            )
    return by_name


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
