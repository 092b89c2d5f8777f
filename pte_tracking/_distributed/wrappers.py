"""Models inside wrappers of torch for data parallelism or compilation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from torch import nn

_Model = TypeVar("_Model")


def unwrap(model: _Model) -> _Model:
    """Return the model inside ``DistributedDataParallel``, ``DataParallel``, and ``torch.compile``.

    Its parameter names have no prefix ``module.`` or ``_orig_mod.``. Other objects are returned unchanged.
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
    """Yield a model and its submodules with their observer names, such as ``main`` and ``main/encoder/0``."""
    for path, part in model.named_modules():
        yield f"{name}/{path.replace('.', '/')}" if path else name, part


def rank_local_model(model: _Model) -> _Model:
    """Return the callable to use where ranks must not communicate: a compiled model stays compiled."""
    bare = unwrap(model)
    return model if _original_module(model) is bare else bare


def _original_module(model: object) -> Any:
    # The attribute identifies a compiled model. Importing the compiler for isinstance() would take a second.
    return model._modules.get("_orig_mod") if isinstance(model, nn.Module) else None
