"""Batches: on a device, as arguments, and their form where it is known beforehand."""

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

from pte_tracking._data.batch import check_takes, example, mark_last, to_device, unpack


class Pair(NamedTuple):
    x: Any
    y: Any


def test_all_that_can_be_moved_is_moved_and_the_rest_stays() -> None:
    one = torch.ones(1)
    moved = to_device({"a": [one, (one, "name")], "b": Pair(one, 3)}, "meta")
    assert moved["a"][0].is_meta
    assert moved["a"][1][0].is_meta
    assert moved["a"][1][1] == "name"
    assert type(moved["b"]) is Pair
    assert moved["b"].x.is_meta
    assert moved["b"].y == 3
    assert type(moved["a"]) is list


def test_without_a_device_a_batch_is_left_as_it_is() -> None:
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
def test_a_batch_is_handed_over_in_its_parts(batch: Any, arguments: Any) -> None:
    assert unpack(batch) == arguments


@given(st.lists(st.none() | st.integers()))
def test_the_last_batch_is_known(batches: list[int | None]) -> None:
    marked = list(mark_last(batches))
    assert [batch for batch, _ in marked] == batches
    assert [is_last for _, is_last in marked] == [False] * (len(batches) - 1) + [True] * bool(batches)


def evaluate(args: object, model: object, data: object, target: object) -> None: ...


def only_named(*, data: object) -> None: ...


class Taking(nn.Module):
    def forward(self, data: object, target: object = None) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        lambda data, target: None,
        lambda *parts: None,
        lambda data, target, weight=1: None,
        partial(evaluate, 1, 2),
        partial(evaluate, args=1, model=2),
        Taking(),
        print,
        max,
    ],
)
def test_what_can_be_called_with_a_batch_passes(function: Any) -> None:
    if getattr(function, "keywords", None):
        check_takes(function, {"data": 1, "target": 2}, "eval_func")
    else:
        check_takes(function, [1, 2], "eval_func")


@pytest.mark.parametrize(
    ("function", "batch", "message"),
    [
        (evaluate, [1, 2], r"as eval_func\(part_1, part_2\); evaluate\(args.*target.*\) -> .*missing.*'data'"),
        (lambda data: None, [1, 2], r"<lambda>\(data\) cannot be called so: too many positional"),
        (lambda: None, 1, r"as eval_func\(part_1\)"),
        (only_named, [1], r"only_named.*too many positional"),
        (lambda data: None, {"x": 1, "y": 2}, r"as eval_func\(x=\.\.\., y=\.\.\.\)"),
        (partial(evaluate, 1), [1, 2], r"partial.*missing a required argument: 'target'"),
        (Taking(), [1, 2, 3], r"Taking\(data.*too many positional"),
    ],
)
def test_what_cannot_is_told_the_call_that_it_must_take(function: Any, batch: Any, message: str) -> None:
    with pytest.raises(TypeError, match=r"(?s)eval_func: it is called with each batch unpacked.*" + message):
        check_takes(function, batch, "eval_func")


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
def test_the_form_of_a_batch_is_that_of_what_lies_in_memory(loader: Any, expected: int | None) -> None:
    form = example(loader)
    assert parts(form) == expected
    first = next(iter(loader), None)
    assert expected is None or parts(first) == expected


class Unreadable(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise AssertionError("read")


class UnreadableStream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("read")


@pytest.mark.parametrize("dataset", [Unreadable(), UnreadableStream()])
def test_no_other_dataset_is_read_for_it(dataset: Any) -> None:
    assert example(DataLoader(dataset)) is None
