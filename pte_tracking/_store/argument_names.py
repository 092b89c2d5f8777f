"""Errors of keyword arguments that a function does not have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, KeysView
from typing import ParamSpec, TypeVar

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
        known = argument_names(function)

        @functools.wraps(function)
        def with_known_names(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if kwargs and not known >= kwargs.keys():
                owner = type(args[0]).__name__ if args and function.__name__ == "__init__" else function.__qualname__
                raise unknown_argument(owner, kwargs, known, hint)
            return function(*args, **kwargs)

        return with_known_names

    return decorate


def argument_names(function: Callable[..., object]) -> KeysView[str]:
    """Return the names of the arguments of a function, in their order."""
    return dict.fromkeys(name for name in inspect.signature(function).parameters if name != "self").keys()


def unknown_argument(owner: str, names: Collection[str], known: Collection[str], hint: str = "") -> TypeError:
    """Return the error about the first unknown name.

    Args:
        owner: The called function or class.
        names: Names of the passed arguments.
        known: Names of the arguments that exist.
        hint: Sentence about what to write instead.
    """
    name = next(name for name in names if name not in known)
    advice = f" {hint}" if hint else suggest(name, known)
    return TypeError(f"{owner}: unknown argument {name!r}.{advice} Arguments: {', '.join(known)}.")
