"""Models inside wrappers of torch for data parallelism or compilation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from torch import nn

_Model = TypeVar("_Model")
#: Attribute of ``FullyShardedDataParallel``. That wrapper itself removes it from the names in states, and adds it.
_FLAT = "_fsdp_wrapped_module"


def unwrap(model: _Model) -> _Model:
    """Return the model inside ``DistributedDataParallel``, ``DataParallel``, and ``torch.compile``.

    Its parameter names have no prefix ``module.`` or ``_orig_mod.``. Other objects are returned unchanged.
    """
    while attribute := _inner_attribute(model):
        model = getattr(model, attribute)
    return model


def named_submodules(name: str, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield a model and its submodules with their observer names, such as ``main`` and ``main/encoder/0``."""
    for path, part in model.named_modules():
        yield f"{name}/{path.replace('.', '/')}" if path else name, part


def rank_local_model(model: _Model) -> _Model:
    """Return the callable to use where ranks must not communicate: a compiled model stays compiled."""
    bare = unwrap(model)
    return model if _original_module(model) is bare else bare


def has_wrappers(model: nn.Module) -> bool:
    """Return whether a model or a part of it is wrapped."""
    return any(map(_inner_attribute, model.modules()))


def bare_name(model: nn.Module, name: str) -> str:
    """Return the name that a parameter, buffer, or submodule has if neither the model nor a part of it is wrapped.

    Args:
        model: The model.
        name: The name in the model, such as ``body._orig_mod.weight``.
    """
    bare: list[str] = []
    part: nn.Module | None = model
    for attribute in name.split("."):
        if attribute not in (_inner_attribute(part), _FLAT):
            bare.append(attribute)
        part = None if part is None else part._modules.get(attribute)
    return ".".join(bare)


def wrapped_name(model: nn.Module, name: str) -> str:
    """Return the name in a model that may be wrapped, or have wrapped parts; the inverse of :func:`bare_name`.

    Args:
        model: The model.
        name: The name without wrappers, such as ``body.weight``.
    """
    wrapped: list[str] = []
    part: nn.Module | None = model
    for attribute in name.split("."):
        while inner := _inner_attribute(part):
            wrapped.append(inner)
            part = cast(nn.Module, part)._modules[inner]
        wrapped.append(attribute)
        part = None if part is None else part._modules.get(attribute)
    return ".".join(wrapped)


def _inner_attribute(model: object) -> str:
    """Return the attribute of a wrapper that contains the wrapped module; empty for any other object."""
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return "module"
    return "_orig_mod" if _original_module(model) is not None else ""


def _original_module(model: object) -> Any:
    # The attribute identifies a compiled model. Importing the compiler for isinstance() would take a second.
    return model._modules.get("_orig_mod") if isinstance(model, nn.Module) else None
