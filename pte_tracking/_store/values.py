"""What users hand in, made plain once, before it reaches the journal: numbers, keys, params."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from pte_tracking._store.events import Number, Scalar

_INT64_LIMIT = 2**63  # what the integer columns of databases and other languages hold


def check_key(key: object, argument: str = "key") -> str:
    """The key itself, if every backend can be given it: any text but the empty one and lone surrogates.

    Raises:
        TypeError: It is not a string.
        ValueError: It is empty, or no valid Unicode.
    """
    if not isinstance(key, str):
        raise TypeError(f"{argument}: expected a string, got {key!r} of type {type(key).__name__}")
    if not key:
        raise ValueError(f"{argument}: an empty string cannot name anything; give a name such as 'loss'")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument}: {key!r} holds a lone surrogate, which is no character; remove it") from None
    return key if type(key) is str else str.__str__(key)


def to_number(key: str, value: Any) -> Number:
    """A Python number from a number, a NumPy scalar, or an array or tensor of one element on any device.

    Raises:
        TypeError: It is not a real number.
        ValueError: It has more than one element.
    """
    if type(value) is float:
        return value
    if isinstance(value, int):
        return int(value) if -_INT64_LIMIT <= value < _INT64_LIMIT else _to_float(value)
    if isinstance(value, float):
        return float(value)
    # A tensor of one number is the commonest of what is left; all others are looked at more closely.
    try:
        if type(item := value.item()) is float:
            return item
    except (AttributeError, RuntimeError, TypeError, ValueError):
        pass
    shape = getattr(value, "shape", ())
    if any(length != 1 for length in shape):
        raise ValueError(
            f"values[{key!r}]: expected a single number, got {type(value).__name__} of shape {tuple(shape)}; "
            "reduce it first, for example with .mean()"
        )
    if hasattr(value, "item"):
        item = value.item()
        # NumPy's long double gives itself.
        return _to_float(value) if type(item) is type(value) else to_number(key, item)
    if hasattr(value, "__float__") and not isinstance(value, str):
        return _to_float(value)
    raise TypeError(f"values[{key!r}]: expected a real number, got {value!r} of type {type(value).__name__}")


def to_numbers(values: Mapping[str, Any]) -> dict[str, Number]:
    """A row of numbers, its keys checked.

    Raises:
        TypeError: ``values`` is no mapping, a key no string, or a value no number.
        ValueError: A key is empty or no Unicode, or a value has several elements.
    """
    if type(values) is not dict and not isinstance(values, Mapping):
        raise TypeError(
            f"values: expected a mapping of names to numbers, got {values!r} of type {type(values).__name__}"
        )
    return {
        # The two commonest cases are decided here: this is paid for at every row.
        key if type(key) is str and key.isascii() and key else check_key(key, "values"): (
            value if type(value) is float else to_number(key, value)
        )
        for key, value in values.items()
    }


def to_progress(argument: str, value: Any) -> Number | None:
    """An epoch or a time, if there is one: what is not finite says nothing.

    Raises:
        TypeError: It is neither a number nor None.
    """
    if value is None:
        return None
    try:
        number = value if type(value) is float else to_number(argument, value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument}: expected a number, got {value!r} of type {type(value).__name__}") from None
    return number if math.isfinite(number) else None


def to_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags: names to texts.

    Raises:
        TypeError: ``tags`` is no mapping, or a name no string.
        ValueError: A name is empty or no Unicode.
    """
    if not isinstance(tags, Mapping):
        raise TypeError(f"tags: expected a mapping, got {tags!r} of type {type(tags).__name__}")
    return {check_key(key, "tags"): to_text(str(value)) for key, value in tags.items()}


def check_step(step: object) -> int:
    """The step itself, if it is a whole number.

    Raises:
        TypeError: It is not.
        ValueError: It needs more than 64 bits.
    """
    if type(step) is not int:
        try:
            step = int(operator.index(step))  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"step: expected an int, got {step!r} of type {type(step).__name__}") from None
    if not -_INT64_LIMIT <= step < _INT64_LIMIT:
        raise ValueError(f"step: expected a number of at most 64 bits, got {step}")
    return step


def flatten_params(params: Mapping[str, Any]) -> dict[str, Scalar]:
    """Nested params as one level: names are joined by ``/``; what is no plain value is kept as its text.

    Raises:
        TypeError: ``params`` is no mapping.
        ValueError: Two params have the same joined name.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a mapping, got {params!r} of type {type(params).__name__}; try vars(args)")
    flat: dict[str, Scalar] = {}
    for key, value in params.items():
        name = check_key(key if isinstance(key, str) else str(key), "params")
        inner = flatten_params(value) if isinstance(value, Mapping) and value else {"": _plain(value)}
        for rest, leaf in inner.items():
            joined = f"{name}/{rest}" if rest else name
            if joined in flat:
                raise ValueError(f"params: {joined!r} is there twice once nested names are joined by '/'; rename one")
            flat[joined] = leaf
    return flat


def _plain(value: Any) -> Scalar:
    if value is None or isinstance(value, str | bool):
        return to_text(value) if isinstance(value, str) else value
    try:
        number = to_number("", value)
    except (TypeError, ValueError):
        return to_text(str(value))
    return number if number - number == 0 else str(float(number))  # JSON has no NaN and no infinities


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an int or a fraction beyond all floats
        return math.inf if value > 0 else -math.inf


def to_text(text: str) -> str:
    """The text itself, lone surrogates in it as escapes."""
    return text.encode(errors="backslashreplace").decode()
