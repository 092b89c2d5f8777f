"""Search for the objects that a data loader refers to: samplers, datasets, wrapped loaders, and random generators.

No code of these objects runs: attributes are read from ``__dict__`` and slots, and properties are not evaluated. The
content of datasets is not searched: long containers, tensors, arrays, and models are skipped.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn, optim

from pte_tracking._snapshots.generator_state import is_generator

_MAX_OBJECTS = 2000
_MAX_DEPTH = 10
#: Longer containers are data.
_MAX_ITEMS = 64
_CONTAINERS = (dict, OrderedDict, list, tuple, deque)
#: Faster to check than ``isinstance()``.
_LEAF_TYPES = frozenset((type(None), str, bytes, bool, int, float, complex, torch.Tensor))
_LEAVES = (
    str,
    bytes,
    bytearray,
    int,
    float,
    type,
    types.ModuleType,
    torch.Tensor,
    torch.dtype,
    nn.Module,
    optim.Optimizer,
)
#: Iterators of a DataLoader. They contain queues and prefetched batches.
_SKIPPED_ATTRIBUTES = frozenset({"_iterator"})
#: Packages whose objects refer to no loader or sampler, or to data.
_SKIPPED_PACKAGES = frozenset(
    (
        *("asyncio", "concurrent", "io", "logging", "multiprocessing", "pathlib", "queue", "re", "socket"),
        *("subprocess", "threading", "weakref", "_io", "_thread"),
        *("numpy", "pandas", "PIL", "polars", "pte_tracking", "pyarrow"),
    )
)


def walk(root: object) -> Iterator[tuple[str, Any]]:
    """Yield the objects that can be reached from an object, each once and the nearest first.

    Args:
        root: The object to start at.

    Yields:
        The path of an object, such as ``"batch_sampler.sampler"``, and the object. The path of the root is empty. Plain
        values, tensors, arrays, modules, and classes are not yielded.
    """
    seen = {id(root): root}
    queue = deque([("", root, 0)])
    while queue:
        path, value, depth = queue.popleft()
        yield path, value
        if depth == _MAX_DEPTH or is_generator(value):
            continue
        for name, child in _children(value):
            if id(child) in seen or len(seen) == _MAX_OBJECTS or not _is_searched(child):
                continue
            seen[id(child)] = child  # a reference, so that the identity stays unique
            queue.append(((path + name).removeprefix("."), child, depth + 1))


def attributes_of(value: object) -> dict[str, Any]:
    """Return the attributes of an object from ``__dict__`` and slots, without evaluating properties."""
    try:
        attributes = dict(object.__getattribute__(value, "__dict__"))
    except (AttributeError, TypeError):
        attributes = {}
    for kind in type(value).__mro__:
        if "__slots__" not in vars(kind):
            continue
        for name, slot in vars(kind).items():
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    attributes[name] = slot.__get__(value)
                except AttributeError:
                    continue  # the slot is empty
    return attributes


def _is_searched(value: object) -> bool:
    if type(value) in _LEAF_TYPES or isinstance(value, _LEAVES):
        return False
    if is_generator(value):
        return True
    package, _, rest = type(value).__module__.partition(".")
    if package == "torch":
        return rest.startswith("utils.data")
    return package not in _SKIPPED_PACKAGES


def _children(value: Any) -> list[tuple[str, Any]]:
    if type(value) in _CONTAINERS and len(value) > _MAX_ITEMS:
        return []
    if type(value) in (dict, OrderedDict):
        return [(f"[{key!r}]", item) for key, item in value.items() if isinstance(key, str | int)]
    if type(value) in _CONTAINERS:
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, functools.partial):
        return [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [(".__self__", value.__self__)]
    if isinstance(value, types.FunctionType):
        return _function_children(value)
    return [(f".{name}", child) for name, child in attributes_of(value).items() if name not in _SKIPPED_ATTRIBUTES]


def _function_children(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the variables that a function captured, and its defaults."""
    children: list[tuple[str, Any]] = [(".__defaults__", function.__defaults__)]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            children.append((f".__closure__.{name}", cell.cell_contents))
        except ValueError:
            continue  # the variable is not assigned yet
    return children
