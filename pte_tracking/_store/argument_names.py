"""Errors of arguments that a function does not have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pte_tracking._store.similar import suggest

_P = ParamSpec("_P")
_R = TypeVar("_R")


def refuse_unknown(hint: str = "") -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator that names the arguments of a function if an unknown one is passed by name.

    Python itself suggests similar names from version 3.13 on.

    Args:
        hint: Sentence about what to write instead. Defaults to none.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        known = dict.fromkeys(name for name in inspect.signature(function).parameters if name != "self").keys()

        @functools.wraps(function)
        def with_known_names(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if kwargs and not known >= kwargs.keys():
                owner = type(args[0]).__name__ if args and function.__name__ == "__init__" else function.__qualname__
                name = next(name for name in kwargs if name not in known)
                advice = f" {hint}" if hint else suggest(name, known)
                raise TypeError(f"{owner}: unknown argument {name!r}.{advice} Arguments: {', '.join(known)}.")
            return function(*args, **kwargs)

        return with_known_names

    return decorate


def refused_call(function: Callable[..., Any], count: int) -> str | None:
    """Return the name and the signature of a function that cannot be called with a number of positional arguments.

    Args:
        function: The function, or another callable object.
        count: Number of the arguments.

    Returns:
        Such as ``"stop(manager, patience)"``. None if the function accepts the arguments, or has no signature.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # as of some built-in functions
        return None
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return f"{getattr(function, '__name__', type(function).__name__)}{signature}"
    return None
