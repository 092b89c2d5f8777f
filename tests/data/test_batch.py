"""Batches: device, arguments, and structure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from pte_tracking._data.batch import check_signature, example_batch, mark_last, to_device, unpack


class Pair(NamedTuple):
    x: Any
    y: Any


def test_to_device_moves_tensors_and_keeps_other_values() -> None:
    tensor = torch.ones(1)
    moved = to_device({"a": [tensor, (tensor, "name")], "b": Pair(tensor, 3)}, "meta")
    assert moved["a"][0].is_meta
    assert moved["a"][1][0].is_meta
    assert moved["a"][1][1] == "name"
    assert type(moved["b"]) is Pair
    assert moved["b"].x.is_meta
    assert moved["b"].y == 3
    assert type(moved["a"]) is list


def test_to_device_none_returns_same_batch() -> None:
    batch = [torch.ones(1)]
    assert to_device(batch, None) is batch


@pytest.mark.parametrize(
    ("batch", "arguments"),
    [
        ([1, 2], ((1, 2), {})),
        ((1, 2), ((1, 2), {})),
        ({"x": 1}, ((), {"x": 1})),
        (Pair(1, 2), ((Pair(1, 2),), {})),
        ("text", (("text",), {})),
    ],
)
def test_unpack_splits_batch_into_arguments(batch: Any, arguments: Any) -> None:
    assert unpack(batch) == arguments


@given(st.lists(st.none() | st.integers()))
def test_mark_last_flags_final_batch(batches: list[int | None]) -> None:
    marked = list(mark_last(batches))
    assert [batch for batch, _ in marked] == batches
    assert [is_last for _, is_last in marked] == [False] * (len(batches) - 1) + [True] * bool(batches)


def evaluate(args: object, model: object, data: object, target: object) -> None: ...


def accept_keyword_only(*, data: object) -> None: ...


class OptionalTargetModel(nn.Module):
    def forward(self, data: object, target: object = None) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        lambda data, target: None,
        lambda *parts: None,
        lambda data, target, weight=1: None,
        partial(evaluate, 1, 2),
        partial(evaluate, args=1, model=2),
        OptionalTargetModel(),
        print,
        max,
    ],
)
def test_check_takes_compatible_function_passes(function: Any) -> None:
    if getattr(function, "keywords", None):
        check_signature(function, {"data": 1, "target": 2}, "eval_func")
    else:
        check_signature(function, [1, 2], "eval_func")


@pytest.mark.parametrize(
    ("function", "batch", "message"),
    [
        (evaluate, [1, 2], r"as in eval_func\(part_1, part_2\), but evaluate\(args.*target.*\) -> .*missing.*'data'"),
        (lambda data: None, [1, 2], r"<lambda>\(data\) does not accept these arguments: too many positional"),
        (lambda: None, 1, r"as in eval_func\(part_1\)"),
        (accept_keyword_only, [1], r"accept_keyword_only.*too many positional"),
        (lambda data: None, {"x": 1, "y": 2}, r"as in eval_func\(x=\.\.\., y=\.\.\.\)"),
        (partial(evaluate, 1), [1, 2], r"partial.*missing a required argument: 'target'"),
        (OptionalTargetModel(), [1, 2, 3], r"OptionalTargetModel\(data.*too many positional"),
    ],
)
def test_check_takes_incompatible_function_raises_type_error(function: Any, batch: Any, message: str) -> None:
    with pytest.raises(TypeError, match=r"(?s)eval_func: each batch is unpacked.*" + message):
        check_signature(function, batch, "eval_func")


@pytest.mark.parametrize(
    ("function", "is_given", "message"),
    [
        (
            OptionalTargetModel(),
            False,
            r"eval_func is missing, and each batch is unpacked, as in model\(.*Pass eval_func=, a",
        ),
        (OptionalTargetModel(), True, r"eval_func: each batch is unpacked, as in eval_func\(.*Pass eval_func=, a"),
        (lambda data: None, True, r"too many positional arguments. Pass a function that accepts them\.$"),
        (evaluate, True, r"Bind additional arguments, as in lambda data, target: evaluate\(model, data, target\)\.$"),
    ],
)
def test_check_of_signature_names_fitting_remedy(function: Any, is_given: bool, message: str) -> None:
    batch = [1, 2] if function is evaluate else [1, 2, 3]
    with pytest.raises(TypeError, match=message):
        check_signature(function, batch, "eval_func", is_given=is_given)


def parts(form: Any) -> int | None:
    return None if form is None else len(unpack(form)[0])


PAIRS = TensorDataset(torch.zeros(4, 3), torch.zeros(4))


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        (DataLoader(PAIRS, 2), 2),
        (DataLoader(PAIRS, batch_size=None), 2),
        (DataLoader(Subset(ConcatDataset([PAIRS, PAIRS]), [1])), 2),
        (DataLoader([1, 2]), 1),  # type: ignore[arg-type]
        (DataLoader([(1, 2, 3)]), 3),  # type: ignore[arg-type]
        ([[1, 2]], 2),
        ([], None),
        (DataLoader([]), None),  # type: ignore[arg-type]
        (DataLoader(PAIRS, collate_fn=lambda samples: samples), None),
        (range(3), None),
    ],
)
def test_example_returns_batch_form_of_in_memory_data(loader: Any, expected: int | None) -> None:
    form = example_batch(loader)
    assert parts(form) == expected
    first = next(iter(loader), None)
    assert expected is None or parts(first) == expected


class UnreadableDataset(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise AssertionError("read")


class UnreadableStream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("read")


@pytest.mark.parametrize("dataset", [UnreadableDataset(), UnreadableStream()])
def test_example_other_datasets_are_not_read(dataset: Any) -> None:
    assert example_batch(DataLoader(dataset)) is None
