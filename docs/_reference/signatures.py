"""Signatures of public objects as blocks of Python code, with the annotations of the source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, is_typeddict

import msgspec

LINE_LENGTH = 88
#: Private names of types in annotations, by what a reader needs to know of them.
TYPES = {
    "_?Int64": "int",
    "_?RelativePath": "str",
    "_?SubdirectoryPath": "str",
    "StoredNumber": "int | float | str",
    "Row": "dict[str, Number]",
    "Unit": 'Literal["epoch", "iteration"]',
    "_(?=[A-Z])": "",
}


def write_signature(kind: str, name: str, obj: Any) -> list[str]:
    """Return the lines of a block of code that declares an object."""
    if kind == "property":
        return [f"{name.rpartition('.')[2]}: {_returned(obj)}"]
    if kind in ("class", "exception"):
        return _break(f"class {name}", _parameters_of_class(obj), "")
    parameters = _parameters(obj)
    shown = name.rpartition(".")[2] if kind == "method" else name
    returned = _shorten(inspect.signature(obj).return_annotation)
    if inspect.isgeneratorfunction(inspect.unwrap(obj)) and not inspect.isgeneratorfunction(obj):
        returned = returned.replace("Iterator[", "AbstractContextManager[")
    return _break(shown, parameters, f" -> {returned}")


def _returned(obj: Any) -> str:
    function = obj.fget if isinstance(obj, property) else obj.func
    return _shorten(inspect.signature(function).return_annotation)


def _parameters_of_class(cls: Any) -> list[str]:
    if getattr(cls, "_is_protocol", False) or is_typeddict(cls):
        return []
    if issubclass(cls, BaseException) and "__init__" not in vars(cls):
        return []
    if issubclass(cls, msgspec.Struct):
        # The evaluated annotations contain the limits of each field.
        annotations = {key: text for base in cls.__mro__ for key, text in vars(base).get("__annotations__", {}).items()}
        parameters = inspect.signature(cls).parameters.values()
        shown = [
            _write_parameter(parameter.replace(annotation=annotations[parameter.name])) for parameter in parameters
        ]
        return [text.replace("<factory>", "{}") for text in shown]
    # A base class of another library may define __new__, too.
    return _parameters(cls.__init__ if "__init__" in vars(cls) else cls)


def _parameters(function: Callable[..., Any]) -> list[str]:
    shown: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self" or parameter.name.startswith("_"):
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not any(text.startswith("*") for text in shown):
            shown.append("*")
        shown.append(_write_parameter(parameter))
    return shown


def _write_parameter(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    annotation = "" if parameter.annotation is parameter.empty else f": {_shorten(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{annotation}"
    default = repr(parameter.default)
    if default.startswith("<function"):
        default = "..."
    return f"{parameter.name}{annotation}{' = ' if annotation else '='}{default}".replace("'", '"')


def _shorten(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return "Any"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    for name, plain in TYPES.items():
        text = re.sub(rf"\b{name}\b" if name[-1].isalnum() else rf"\b{name}", plain, text)
    return re.sub(r"\b(?!pandas|polars)(?:[a-z_]\w*\.)+(?=[A-Z])", "", text).replace("'", '"')


def _break(start: str, parameters: list[str], end: str) -> list[str]:
    """Write a declaration in one line, or with one parameter per line."""
    if not parameters and start.startswith("class "):
        return [start]
    line = f"{start}({', '.join(parameters)}){end}"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [f"{start}(", *(f"    {parameter}," for parameter in parameters), f"){end}"]
