"""Signatures of public objects as blocks of Python code, with the annotations of the source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import msgspec

#: Number of characters per line of code, as in the source.
LINE_LENGTH = 88


def write_signature(kind: str, name: str, obj: Any) -> list[str]:
    """Return the lines of a block of code that declares an object."""
    if kind == "property":
        return [f"{name.rpartition('.')[2]}: {_returned(obj)}"]
    if kind in ("class", "exception"):
        return _break(f"class {name}", _parameters_of_class(obj), "")
    parameters = _parameters(obj, skips_first=kind == "method" and not inspect.ismethod(obj))
    shown = name.rpartition(".")[2] if kind == "method" else name
    return _break(shown, parameters, f" -> {_shorten(inspect.signature(obj).return_annotation)}")


def _returned(obj: Any) -> str:
    function = obj.fget if isinstance(obj, property) else obj.func
    return _shorten(inspect.signature(function).return_annotation)


def _parameters_of_class(cls: Any) -> list[str]:
    if getattr(cls, "_is_protocol", False) or issubclass(cls, BaseException):
        return []
    # A base class of another library may define __new__, too.
    if "__init__" in vars(cls) and not issubclass(cls, msgspec.Struct):
        return _parameters(cls.__init__, skips_first=True)
    factories = {}
    if issubclass(cls, msgspec.Struct):
        factories = {field.name: field.default_factory for field in msgspec.structs.fields(cls)}
    return _parameters(cls, factories=factories)


def _parameters(
    function: Callable[..., Any], *, skips_first: bool = False, factories: dict[str, Any] | None = None
) -> list[str]:
    parameters = list(inspect.signature(function).parameters.values())[int(skips_first) :]
    shown = []
    for parameter in parameters:
        if parameter.name.startswith("_"):
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not any(text.startswith("*") for text in shown):
            shown.append("*")
        shown.append(_write_parameter(parameter, factories or {}))
    return shown


def _write_parameter(parameter: inspect.Parameter, factories: dict[str, Any]) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    annotation = "" if parameter.annotation is parameter.empty else f": {_shorten(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{annotation}"
    default = repr(parameter.default)
    if default == "<factory>":
        default = repr(factories[parameter.name]())
    if default.startswith("<"):
        default = "..."
    return f"{parameter.name}{annotation}{' = ' if annotation else '='}{default.replace(chr(39), chr(34))}"


def _shorten(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return "Any"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)


def _break(start: str, parameters: list[str], end: str) -> list[str]:
    """Write a declaration in one line, or with one parameter per line."""
    if not parameters and start.startswith("class "):
        return [start]
    line = f"{start}({', '.join(parameters)}){end}"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [f"{start}(", *(f"    {parameter}," for parameter in parameters), f"){end}"]
