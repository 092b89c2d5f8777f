"""Validation and conversion of logged values."""

from __future__ import annotations

import decimal
import fractions
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from pte_tracking._store import event_encoding, events
from pte_tracking._store.events import Number
from pte_tracking._store.values import check_key, check_step, to_number, to_numbers, to_texts

NUMPY_TYPES = [
    *(np.dtype(name) for name in np.typecodes["AllInteger"]),
    *(np.dtype(name) for name in np.typecodes["Float"]),
    np.dtype(bool),
]
TORCH_TYPES = sorted(
    {result for name in dir(torch) if isinstance(result := getattr(torch, name), torch.dtype)}, key=str
)


class WithoutShape:
    """Value that raises errors like a nested tensor."""

    @property
    def shape(self) -> Any:
        raise RuntimeError("no shape")

    def item(self) -> Any:
        raise RuntimeError("no item")


def is_real(dtype: torch.dtype) -> bool:
    """Whether tensors of the type contain real numbers. Some types only define a bit width."""
    try:
        return not dtype.is_complex and torch.ones((), dtype=dtype).item() == 1
    except (NotImplementedError, RuntimeError):
        return False


def same(candidate: Number, other: float) -> bool:
    return candidate == other or (math.isnan(candidate) and math.isnan(other))


def is_plain(number: Number) -> bool:
    """Whether the number round-trips through a line of the journal."""
    result = event_encoding.decode(event_encoding.encode(events.Metrics(1, 0.0, 1, {"a": number})))
    assert isinstance(result, events.Metrics)
    restored = result.values["a"]
    return type(number) in (int, float) and type(restored) is type(number) and (restored == number or number != number)


@given(st.floats() | st.integers() | st.booleans() | st.floats(width=16) | st.integers(10**300, 10**320))
def test_to_number_accepts_any_python_number(value: float) -> None:
    number = to_number("a", value)
    assert is_plain(number)
    if isinstance(value, float) or -(2**63) <= value < 2**63:
        assert same(number, value)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64, 10**30, -(10**300)])
def test_to_number_int_beyond_64_bits_becomes_nearest_float(value: int) -> None:
    assert to_number("a", value) == float(value)


def test_to_number_int_beyond_float_range_becomes_infinity() -> None:
    assert to_number("a", 10**400) == math.inf
    assert to_number("a", -(10**400)) == -math.inf


@given(st.sampled_from(NUMPY_TYPES).flatmap(lambda dtype: numpy_strategies.from_dtype(dtype)), st.integers(0, 3))
def test_to_number_accepts_single_element_numpy_values(scalar: Any, dimensions: int) -> None:
    with np.errstate(all="ignore"):  # a long double can exceed the range of a double
        expected = float(scalar)
        for value in (scalar, np.full((1,) * dimensions, scalar)):
            number = to_number("a", value)
            assert is_plain(number)
            assert same(float(number), expected)


@pytest.mark.parametrize("dtype", [candidate for candidate in TORCH_TYPES if is_real(candidate)], ids=str)
def test_to_number_accepts_single_element_tensors(dtype: torch.dtype) -> None:
    for shape in [(), (1,), (1, 1, 1)]:
        number = to_number("a", torch.ones(shape, dtype=dtype))
        assert is_plain(number)
        assert number == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_to_number_accepts_tensors_that_require_grad(dtype: torch.dtype) -> None:
    leaf = torch.tensor(0.5, dtype=dtype, requires_grad=True)
    assert to_number("a", leaf) == 0.5
    assert to_number("a", leaf * 2) == 1.0
    assert to_number("a", torch.nn.Parameter(torch.tensor([math.inf], dtype=dtype))) == math.inf


def test_to_number_accepts_decimal_and_fraction() -> None:
    assert to_number("a", decimal.Decimal("0.1")) == 0.1
    assert to_number("a", fractions.Fraction(1, 4)) == 0.25


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked,
        np.ma.array([3.0, 4.0], mask=True).mean(),
        np.ma.array(3.0, mask=True),
        np.ma.array([[3]], mask=[[True]]),
        decimal.Decimal("sNaN"),
    ],
)
def test_to_number_value_that_is_masked_or_no_number_becomes_nan(value: Any) -> None:
    assert math.isnan(to_number("a", value))


@pytest.mark.parametrize(
    "value",
    [
        np.ma.array([3.0, 4.0], mask=[True, False]).mean(),
        np.ma.array([4.0]),
        np.ma.array(4, mask=False),
    ],
)
def test_to_number_masked_array_with_valid_element_returns_it(value: Any) -> None:
    assert to_number("a", value) == 4


@pytest.mark.parametrize("value", [np.ma.array([3.0, 4.0], mask=True), np.ma.array([3.0, 4.0])])
def test_to_number_masked_array_with_several_elements_raises_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"values\['a'\].*a single number.*shape \(2,\)"):
        to_number("a", value)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2), torch.zeros(0), np.zeros((1, 2)), np.zeros(0)],
    ids=["tensor", "empty tensor", "array", "empty array"],
)
def test_to_number_several_elements_raise_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"values\['train/loss'\].*a single number.*of shape \(.*\.mean\(\)"):
        to_number("train/loss", value)


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        None,
        [0.5],
        {"a": 1},
        1j,
        np.complex64(1),
        torch.tensor(1j),
        np.str_("a"),
        np.array(None),
        object(),
        max,
        b"1",
        np.timedelta64(1, "s"),
        np.timedelta64(1, "ns"),  # item() returns an int
        np.array("2026-01-02", dtype="datetime64[ns]"),
        float,
        np.float32,
        WithoutShape(),
        torch.empty((), device="meta"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_to_numbers_non_number_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"values\['a'\].*expected a real number, got .* of type "):
        to_numbers({"a": value})


@pytest.mark.parametrize("key", [1, None, b"loss", ("a",), 0.5])
def test_to_numbers_non_string_key_raises_type_error(key: Any) -> None:
    with pytest.raises(TypeError, match=r"values: expected a string, got .* of type"):
        to_numbers({key: 1.0})


@pytest.mark.parametrize("key", ["", "\ud800", "loss\udfff"])
def test_to_numbers_empty_or_surrogate_key_raises_value_error(key: str) -> None:
    with pytest.raises(ValueError, match=r"^values: "):
        to_numbers({key: 1.0})


@given(st.text(min_size=1))
def test_to_numbers_accepts_any_other_string_key(key: str) -> None:
    assert to_numbers({key: 1.0}) == {key: 1.0}


class StringSubclass(str):
    pass


@pytest.mark.parametrize("kind", [StringSubclass, np.str_])
def test_string_subclass_key_becomes_plain_string(kind: Callable[[str], str]) -> None:
    (key,) = to_numbers({kind("loss"): 1.0})
    assert type(key) is str
    assert type(check_key(kind("loss"))) is str


@pytest.mark.parametrize("values", [None, 0.5, ["loss"], "loss", {"loss"}])
def test_to_numbers_non_mapping_raises_type_error(values: Any) -> None:
    with pytest.raises(TypeError, match=r"values: expected a mapping .*, got "):
        to_numbers(values)


@pytest.mark.parametrize("step", [3, True, np.int64(3), np.uint8(3), torch.tensor(3), 2**63 - 1, -1])
def test_check_step_returns_plain_int(step: Any) -> None:
    assert type(check_step(step)) is int
    assert check_step(step) == int(step)


@pytest.mark.parametrize("step", [1.0, "1", None, torch.tensor(1.0), torch.zeros(2)])
def test_check_step_non_integer_raises_type_error(step: Any) -> None:
    with pytest.raises(TypeError, match=r"step: expected an integer, got "):
        check_step(step)


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1])
def test_check_step_beyond_64_bits_raises_value_error(step: int) -> None:
    with pytest.raises(ValueError, match=r"step: expected .* 64 bits.*, got "):
        check_step(step)


@pytest.mark.parametrize("tags", [[("lr", 1)], "lr", 1])
def test_tags_non_mapping_raises_type_error(tags: Any) -> None:
    with pytest.raises(TypeError, match=r"tags: expected a mapping, got"):
        to_texts(tags)


def test_to_texts_lone_surrogate_is_escaped() -> None:
    assert to_texts({"a": "\ud800", "b": 3}) == {"a": "\\ud800", "b": "3"}
