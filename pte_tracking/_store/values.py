"""Validation and conversion of logged values."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

from pte_tracking._store.events import Number
from pte_tracking._store.printable import describe_value
from pte_tracking._store.secrets import mask_values

#: Types whose values are never masked, so that ``item()`` returns the number. They are those of logged tensors.
_types_without_mask: set[type] = set()

#: Plain strings of the keys that were checked, by key. A training logs the same few keys in each row.
checked_keys: dict[str, str] = {}
_MAX_CHECKED_KEYS = 100_000

INT64_LIMIT = 2**63  # integer columns of databases have 64 bits
_MIN_INT64 = -INT64_LIMIT


def check_key(key: object, argument: str = "key") -> str:
    """Return a key as a plain string.

    Args:
        key: Any non-empty string of valid Unicode.
        argument: Name of the argument in error messages.

    Raises:
        TypeError: If the key is not a string.
        ValueError: If the key is empty or contains a lone surrogate.
    """
    if not isinstance(key, str):
        raise TypeError(f"{argument}: expected a string, got {describe_value(key)}")
    if not key:
        raise ValueError(f"{argument}: expected a non-empty string such as 'loss', got ''")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument}: expected valid Unicode, got {key!r} with a lone surrogate") from None
    return key if type(key) is str else str.__str__(key)


def check_new_key(key: object) -> str:
    """Return a key of a row as a plain string, and add it to ``checked_keys``.

    Raises:
        TypeError: If the key is not a string.
        ValueError: If the key is empty or contains a lone surrogate.
    """
    plain = check_key(key, "values")
    if len(checked_keys) < _MAX_CHECKED_KEYS:
        checked_keys[plain] = plain
    return plain


def to_number(key: str, value: Any) -> Number:
    """Convert a value to a Python number.

    Args:
        key: Name of the value in error messages.
        value: Number, NumPy scalar, or array or tensor with one element on any device.

    Returns:
        An int of at most 64 bits, or a float. NaN for a masked element of NumPy.

    Raises:
        TypeError: If the value is not a real number.
        ValueError: If the value does not have exactly one element.
    """
    if type(value) is float:
        return value
    if isinstance(value, int):
        return int(value) if -INT64_LIMIT <= value < INT64_LIMIT else _to_float(value)
    if isinstance(value, float):
        return float(value)
    if type(value) not in _types_without_mask and _is_masked(value):
        return math.nan
    # Most remaining values are tensors with one element.
    try:
        if type(item := value.item()) is float:
            return item
    except (AttributeError, RuntimeError, TypeError, ValueError):
        pass
    shape = _shape_of(value)
    if any(length != 1 for length in shape):
        raise ValueError(
            f"values[{key!r}]: expected a single number, got {type(value).__name__} of shape {shape}. "
            "Reduce it first, for example with .mean()."
        )
    try:
        # item() returns the count of an unknown unit for dates and durations of NumPy.
        if isinstance(value, str | type) or getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
            pass
        elif hasattr(value, "item"):
            item = value.item()
            # item() of NumPy's long double returns a long double.
            return _to_float(value) if type(item) is type(value) else to_number(key, item)
        elif hasattr(value, "__float__"):
            return _to_float(value)
    except (RuntimeError, ValueError):  # a tensor without data, such as one on the device "meta"
        pass
    raise TypeError(f"values[{key!r}]: expected a real number, got {describe_value(value)}")


def to_numbers(values: Mapping[str, Any]) -> dict[str, Number]:
    """Convert the values of a row to Python numbers.

    Args:
        values: Values by key, as accepted by :func:`check_key` and :func:`to_number`.

    Raises:
        TypeError: If ``values`` is not a mapping, a key is not a string, or a value is not a number.
        ValueError: If a key is invalid, or a value does not have exactly one element.
    """
    if type(values) is not dict and not isinstance(values, Mapping):
        raise TypeError(f"values: expected a mapping of names to numbers, got {describe_value(values)}")
    numbers: dict[str, Number] = {}
    # This loop runs for every row: checked keys, floats, and tensors are handled without a call of another function.
    for key, value in values.items():
        plain = checked_keys.get(key) or check_new_key(key)
        if type(value) is not float:
            try:
                is_float = type(value) in _types_without_mask and type(item := value.item()) is float
            except (AttributeError, RuntimeError, TypeError, ValueError):
                is_float = False
            value = item if is_float else to_number(plain, value)
        numbers[plain] = value
    return numbers


def to_progress(argument: str, value: Any) -> Number | None:
    """Convert an epoch or a time to a Python number.

    Args:
        argument: Name of the argument in error messages.
        value: Number or None.

    Returns:
        The number, or None if it is missing or not finite.

    Raises:
        TypeError: If the value is neither a number nor None.
    """
    if value is None:
        return None
    try:
        number = value if type(value) is float else to_number(argument, value)
    except (TypeError, ValueError):
        raise TypeError(f"{argument}: expected a number, got {describe_value(value)}") from None
    return number if math.isfinite(number) else None


def to_texts(tags: Mapping[str, Any]) -> dict[str, str]:
    """Convert the values of tags to strings.

    Raises:
        TypeError: If ``tags`` is not a mapping, or a name is not a string.
        ValueError: If a name is empty or contains a lone surrogate.
    """
    if not isinstance(tags, Mapping):
        raise TypeError(f"tags: expected a mapping, got {describe_value(tags)}")
    return mask_values({check_key(key, "tags"): to_text(str(value)) for key, value in tags.items()})


def check_step(step: object) -> int:
    """Return a step as a Python int.

    Raises:
        TypeError: If the step is not an integer.
        ValueError: If the step has more than 64 bits.
    """
    if type(step) is not int:
        try:
            step = int(operator.index(step))  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"step: expected an integer, got {describe_value(step)}") from None
    if not _MIN_INT64 <= step < INT64_LIMIT:
        raise ValueError(f"step: expected an integer of at most 64 bits, got {step}")
    return step


def _shape_of(value: Any) -> tuple[int, ...]:
    try:
        return tuple(getattr(value, "shape", ()))
    except (RuntimeError, TypeError):  # a nested tensor, or a class whose shape is a descriptor
        return ()


def _is_masked(value: Any) -> bool:
    """Whether a value is a masked element of NumPy, whose item() returns the number below the mask."""
    if not hasattr(type(value), "mask"):
        _types_without_mask.add(type(value))
        return False
    mask = value.mask
    return getattr(mask, "size", 0) == 1 and mask.dtype == bool and bool(mask.all())


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer or fraction larger than every float
        return math.inf if value > 0 else -math.inf
    except ValueError:  # a signaling NaN of the module decimal
        return math.nan


def to_text(text: str) -> str:
    """Return a text with lone surrogates replaced by escapes."""
    return text.encode(errors="backslashreplace").decode()
