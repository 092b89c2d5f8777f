"""Hyperparameters as flat names and plain values."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from pte_tracking._store.events import Scalar
from pte_tracking._store.fields import expand
from pte_tracking._store.printable import describe_value
from pte_tracking._store.secrets import mask_values
from pte_tracking._store.stable_text import StableText
from pte_tracking._store.values import INT64_LIMIT, check_key, to_number, to_text

_logger = logging.getLogger("pte_tracking")

_MAX_PARAMS = 10_000
_MAX_NESTED = 1000  # A nested mapping with more entries is a table, such as a vocabulary.
_MAX_DEPTH = 20


def flatten_params(params: object) -> dict[str, Scalar]:
    """Flatten nested parameters.

    Args:
        params: Parameters by name: a mapping, dataclass, ``argparse.Namespace``, named tuple, or object of OmegaConf,
            pydantic or attrs. Names of nested ones are joined with ``/``.

    Returns:
        Strings, numbers, booleans, and None by name. Other values are converted to a text that depends only on the
        value; see :class:`~pte_tracking._store.stable_text.StableText`.

    Raises:
        TypeError: If ``params`` has no fields.
        ValueError: If a name is empty, two joined names are equal, or there are more than 10,000 parameters.
    """
    fields = _expand(params, "params")
    if not isinstance(fields, Mapping):
        raise TypeError(
            f"params: expected a mapping, dataclass, or argparse.Namespace, got {describe_value(params)}. "
            "Pass a dictionary, such as vars(config) for an object with attributes."
        )
    flat: dict[str, Scalar] = {}
    _flatten(fields, "", [id(params)], flat)
    masked = mask_values(flat)
    changed = [name for name, value in masked.items() if value is not flat[name]]
    if changed:
        _logger.warning("params: recorded without their secrets: %s.", ", ".join(map(repr, changed)))
    return masked


def _flatten(fields: Mapping[Any, Any], prefix: str, containers: list[int], flat: dict[str, Scalar]) -> None:
    argument = f"params[{prefix[:-1]!r}]" if prefix else "params"
    for key, value in fields.items():
        name = prefix + check_key(to_text(StableText(key).text), argument)
        expanded = _expand(value, f"params[{name!r}]")
        is_nested = isinstance(expanded, Mapping) and 0 < len(expanded) <= _MAX_NESTED
        if is_nested and id(value) not in containers and len(containers) < _MAX_DEPTH:
            _flatten(expanded, f"{name}/", [*containers, id(value)], flat)
            continue
        if name in flat:
            raise ValueError(f"params: duplicate name {name!r} after nested names are joined with '/'. Rename one.")
        if len(flat) == _MAX_PARAMS:
            raise ValueError(
                f"params: expected at most {_MAX_PARAMS} parameters, got more. The first one above is {name!r}. "
                "Log a table with log_text() or log_artifact()."
            )
        # A container is read from its object, which may contain itself.
        flat[name] = to_scalar(name, value if isinstance(expanded, Mapping) else expanded)


def _expand(value: Any, argument: str) -> Any:
    try:
        return expand(value)
    except Exception as error:  # The methods that return the fields belong to other libraries.
        raise TypeError(
            f"{argument}: the fields of the {type(value).__name__} could not be read: {error}. Pass a dictionary."
        ) from error


def to_scalar(name: str, value: Any, *, warns: bool = True) -> Scalar:
    """Convert a value to a value that JSON can represent.

    Args:
        name: Name of the value in messages.
        value: Any value.
        warns: Whether to log that a text had to be shortened.
    """
    value = _to_python(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -INT64_LIMIT <= value < INT64_LIMIT:
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))  # JSON has no NaN and no infinities
    stable = StableText(value)
    if warns and not stable.is_complete:
        _logger.warning(
            "params: %r is very large, contains itself, or has no data, and its recorded text is shortened. "
            "To keep all of it, use log_text() or log_artifact().",
            name,
        )
    return to_text(stable.text)


def _to_python(value: Any) -> Any:
    """Convert NumPy scalars, arrays and tensors without dimensions, and other real numbers to Python numbers."""
    if isinstance(value, str | int | float) or not hasattr(type(value), "__float__"):
        return value
    try:
        if getattr(value, "shape", ()) or getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
            return value
        number = value.tolist() if hasattr(value, "tolist") else value
        return number if number is None or isinstance(number, int) else to_number("", number)
    except Exception:  # not a real number, or a tensor without data, such as one on the device "meta"
        return value
