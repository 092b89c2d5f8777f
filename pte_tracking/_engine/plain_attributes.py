"""Plain attributes of an object with a state, in which it keeps its arguments and its counters."""

from __future__ import annotations

import dataclasses
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn, optim

_MAX_OBJECTS = 1000
_MAX_ITEMS = 100
_WITHOUT_ARGUMENTS = (optim.Optimizer, nn.Module, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_ATOMS = (type(None), bool, int, float, str)
#: Position of the class of an object.
CLASS = "__class__"
#: Learning rates that a scheduler reads from its optimizer, whose options are compared on their own.
_OPTIMIZER_OPTIONS = frozenset({"base_lrs", "_last_lr"})


class PlainAttribute(NamedTuple):
    """Attribute whose value consists of numbers, strings, and containers of them.

    Attributes:
        owner: Object that has the attribute.
        name: Name of the attribute.
        value: The value.
    """

    owner: Any
    name: str
    value: Any

    @property
    def digest(self) -> str:
        """Digest of the value, which a snapshot contains in its place: an argument may be a password.

        The name of a class is its own digest.
        """
        if self.name == CLASS:
            return str(self.value)
        return hashlib.sha256(repr(self.value).encode("utf-8", "replace")).hexdigest()[:16]


def plain_attributes(target: object, references: Mapping[int, str]) -> dict[str, PlainAttribute]:
    """Return the plain attributes of an object, and of the objects with a state or arguments in it.

    Args:
        target: The object. No property of it is read, and no method is called.
        references: Names of the models and optimizers by ``id()``, which become values.

    Returns:
        The attributes by position, such as ``"scheduler.total_iters"`` or ``"_schedulers[0].gamma"``.
    """
    return dict(_find(target, "", references, set()))


def _find(
    target: object, path: str, references: Mapping[int, str], seen: set[int]
) -> Iterator[tuple[str, PlainAttribute]]:
    # The arguments of a module are not part of its state, and an object may refer to one that contains it.
    if isinstance(target, nn.Module) or id(target) in seen or len(seen) >= _MAX_OBJECTS:
        return
    seen.add(id(target))
    yield f"{path}.{CLASS}" if path else CLASS, PlainAttribute(target, CLASS, type(target).__name__)
    for name, value in list(getattr(target, "__dict__", {}).items()):
        position = f"{path}.{name}" if path else str(name)
        if id(value) in references:
            yield position, PlainAttribute(target, name, references[id(value)])
        elif name not in _OPTIMIZER_OPTIONS and _is_plain(value):
            yield position, PlainAttribute(target, name, value)
        elif _has_arguments(value):
            yield from _find(value, position, references, seen)
        elif isinstance(value, list | tuple) and len(value) <= _MAX_ITEMS:
            for index, item in enumerate(value):
                if _has_arguments(item):
                    yield from _find(item, f"{position}[{index}]", references, seen)


def _has_arguments(value: object) -> bool:
    """Return whether an object may keep arguments that are part of the state of the object that refers to it.

    For example, the state of a LambdaLR contains the attributes of a callable object, but not those of a function.
    """
    if isinstance(value, (type, *_WITHOUT_ARGUMENTS)):
        return False
    return hasattr(type(value), "state_dict") or callable(value) or dataclasses.is_dataclass(value)


def _is_plain(value: object, depth: int = 3) -> bool:
    if isinstance(value, _ATOMS):
        return True
    if not depth or not isinstance(value, list | tuple | dict) or len(value) > _MAX_ITEMS:
        return False
    items = (*value.keys(), *value.values()) if isinstance(value, dict) else value
    return all(_is_plain(item, depth - 1) for item in items)
