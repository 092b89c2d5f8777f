"""What torch wraps around a model to train it on several devices."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from torch import nn

_Thing = TypeVar("_Thing")


def without_wrapper(model: _Thing) -> _Thing:
    """The model within a ``DistributedDataParallel`` or ``DataParallel``, whose names have no ``module.`` before them.

    Anything else comes back as it is.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return cast(_Thing, cast(Any, model).module)
    return model
