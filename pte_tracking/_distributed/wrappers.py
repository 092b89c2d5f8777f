"""What torch wraps around a model: to train it on several devices, or to compile it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from torch import nn

_Model = TypeVar("_Model")


def unwrap(model: _Model) -> _Model:
    """The model within a ``DistributedDataParallel`` or ``DataParallel``, or what ``torch.compile`` made of one.

    Its names have no ``module.`` and no ``_orig_mod.`` before them. Anything else comes back as it is.
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = cast(Any, model).module
        else:
            inner = _original_module(model)
        if inner is None:
            return model
        model = cast(_Model, inner)


def named_submodules(name: str, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A model and its parts, by the names that what they report goes by: ``main`` and ``main/encoder/0``."""
    for path, part in model.named_modules():
        yield f"{name}/{path.replace('.', '/')}" if path else name, part


def rank_local_model(model: _Model) -> _Model:
    """What to call in place of a model where ranks must not wait for one another: compiled, if the model is."""
    bare = unwrap(model)
    return model if _original_module(model) is bare else bare


def _original_module(model: object) -> Any:
    # Known by the name that its parameters get: to import the compiler, in order to ask for the type, takes a second.
    return model._modules.get("_orig_mod") if isinstance(model, nn.Module) else None
