"""Texts of values that have no form in JSON.

A text depends on the value only: it contains no memory address and no order that differs between processes.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections import UserList, deque
from collections.abc import Iterable, Mapping, Set, ValuesView
from enum import Enum
from types import BuiltinFunctionType, ModuleType
from typing import Any, get_origin

from pte_tracking._store.fields import expand

_MAX_ITEMS = 1000
_MAX_DEPTH = 20
_MAX_LENGTH = 65_536
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class StableText:
    """Text of a value.

    Args:
        value: Any value. It is read in part if it is very large or contains itself.

    Attributes:
        text: The text, at most 65,536 characters and 1,000 items.
        is_complete: Whether the text contains the whole value.
    """

    def __init__(self, value: Any) -> None:
        self.is_complete = True
        self._items_left = _MAX_ITEMS
        self._containers: list[int] = []
        self.text = self._format_top(value)
        if len(self.text) > _MAX_LENGTH:
            self.text = f"{self.text[:_MAX_LENGTH]}... ({len(self.text)} characters)"
            self.is_complete = False

    def _format_top(self, value: Any) -> str:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        return self._format(value, str)

    def _format(self, value: Any, to_text: Any = repr) -> str:
        try:
            return self._format_value(value, to_text)
        except Exception:  # The methods and attributes belong to the user or another library.
            return f"<{type(value).__module__}.{type(value).__qualname__}>"

    def _format_value(self, value: Any, to_text: Any) -> str:
        if isinstance(value, Enum) and not isinstance(value, str | int | float):
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, str | bytes | bool | int | float):
            return _format_builtin(value)
        if isinstance(value, os.PathLike):
            return repr(os.fsdecode(value))
        if (name := _name_of(value)) is not None:
            return name
        expanded = expand(value)
        if isinstance(expanded, Mapping | Set | list | tuple | deque | UserList | ValuesView | functools.partial):
            return self._format_container(value, expanded)
        if expanded is not value:  # an object of OmegaConf or pydantic that contains a single value
            return self._format_value(expanded, to_text)
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return self._format_array(value)
        return _ADDRESS.sub("", to_text(value))

    def _format_container(self, value: Any, expanded: Any) -> str:
        if id(value) in self._containers or len(self._containers) == _MAX_DEPTH:
            self.is_complete = False
            return "..."
        self._containers.append(id(value))
        try:
            if isinstance(expanded, Mapping):
                return f"{{{', '.join(self._format_entries(expanded, ': '))}}}"
            if isinstance(expanded, functools.partial):
                function = self._format(expanded.func)
                arguments = [*self._format_items(expanded.args), *self._format_entries(expanded.keywords, "=")]
                return f"functools.partial({', '.join([function, *arguments])})"
            if isinstance(expanded, Set):
                return self._format_set(expanded)
            items = ", ".join(self._format_items(expanded))
            if isinstance(expanded, tuple):
                return f"({items},)" if len(expanded) == 1 else f"({items})"
            return f"[{items}]"
        finally:
            self._containers.pop()

    def _format_set(self, items: Set[Any]) -> str:
        if len(items) > self._items_left:
            self.is_complete = False
            return f"set of {len(items)} items"
        # The order of a set depends on the hash seed of the process.
        return f"{{{', '.join(sorted(self._format_items(items)))}}}" if items else "set()"

    def _format_items(self, items: Iterable[Any]) -> list[str]:
        texts: list[str] = []
        for item in items:
            if not self._items_left:
                self.is_complete = False
                return [*texts, "..."]
            self._items_left -= 1
            texts.append(self._format(item))
        return texts

    def _format_entries(self, entries: Mapping[Any, Any], separator: str) -> list[str]:
        texts: list[str] = []
        for key, value in entries.items():
            if not self._items_left:
                self.is_complete = False
                return [*texts, "..."]
            self._items_left -= 1
            name = key if separator == "=" else self._format(key)
            texts.append(f"{name}{separator}{self._format(value)}")
        return texts

    def _format_array(self, array: Any) -> str:
        if math.prod(array.shape) <= self._items_left and getattr(array.dtype, "kind", "") not in ("m", "M"):
            try:
                return self._format(array.tolist()) if array.shape else repr(array.tolist())
            except Exception:  # A tensor without data, such as one on the device "meta".
                pass
        elif not array.shape:
            return str(array)
        self.is_complete = False
        return f"{type(array).__name__} of shape {tuple(array.shape)} and type {array.dtype}"


def _format_builtin(value: Any) -> str:
    """Format a value of a builtin type or a subclass, such as ``numpy.float64``, in the same way."""
    for kind in (bool, str, bytes, float):
        if isinstance(value, kind):
            return kind.__repr__(value)
    digits = int(value)
    # Python refuses to write very large integers in decimal.
    return str(digits) if abs(digits) < 10**100 else hex(digits)


def _name_of(value: Any) -> str | None:
    """Return the qualified name of a module, class, function, or method."""
    if isinstance(value, ModuleType):
        return value.__name__
    if get_origin(value) is not None:  # a type with arguments, such as list[int]
        return None
    if not isinstance(value, type) and not (callable(value) and hasattr(value, "__qualname__")):
        return None
    module = getattr(value, "__module__", None)
    # In a spawned process, the main module has another name.
    module = "__main__" if module == "__mp_main__" else module
    # The qualified names of functions written in C contain private classes.
    name: str = value.__name__ if isinstance(value, BuiltinFunctionType) else value.__qualname__
    return name if module in (None, "builtins") else f"{module}.{name}"
