"""Argument names of Chainer and pytorch-pfn-extras: accepted as other spellings, or refused with a replacement."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

#: Hints for arguments that several classes have in pytorch-pfn-extras.
NO_WRITERS = (
    "There are no writers. Pass out_dir= to the manager for the directory, and sinks=, such as "
    "['json', 'tensorboard'], for the destinations. Snapshots are written in a separate thread by default."
)
NO_PROFILER = "There is no profiler. Use torch.profiler in the training loop."
#: Hints for other spellings of the arguments of a manager.
MANAGER_NAMES = {
    "writer": NO_WRITERS,
    "enable_profile": NO_PROFILER,
    "enable_trace": NO_PROFILER,
    "model": "Pass the model first, or as models=.",
    "optimizer": "Pass optimizers=optimizer.",
    "epochs": "Pass max_epochs=.",
    "out": "Pass out_dir=.",
}

_P = ParamSpec("_P")
_R = TypeVar("_R")


def accept_names(**names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator that accepts other names of keyword arguments.

    Args:
        names: Argument of the function, by its other name.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def with_names(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            for other in names.keys() & kwargs.keys():
                if names[other] in kwargs:
                    raise TypeError(
                        f"{_name_of(function)}: {other}= and {names[other]}= are the same argument. Pass one of them."
                    )
                kwargs[names[other]] = kwargs.pop(other)
            return function(*args, **kwargs)

        return with_names

    return decorate


def refuse_names(**hints: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Return a decorator that refuses keyword arguments without a counterpart.

    A value of None or False is the default of these arguments and is ignored.

    Args:
        hints: What to do instead, by name of the argument.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def without_names(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            for name in hints.keys() & kwargs.keys():
                value = kwargs.pop(name)
                if value is not None and value is not False:
                    raise TypeError(
                        f"{_name_of(function)}: {name}= is not supported, got {type(value).__name__}. {hints[name]}"
                    )
            return function(*args, **kwargs)

        return without_names

    return decorate


def _name_of(function: Callable[..., object]) -> str:
    return function.__qualname__.removesuffix(".__init__")
