"""States that torch.load reads in its safe default, or an error that says where the trouble lies."""

import enum
import io
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pte_tracking._snapshots.buffers import Buffers
from pte_tracking._snapshots.plain_state import plain, with_tensors


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def size_in_a_file(state: Any) -> int:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return len(buffer.getvalue())


def test_plain_values_come_back_as_they_were() -> None:
    state = {
        "numbers": [1, 2.5, True, None, 3j, -(2**70), float("inf")],
        "texts": ("a", b"b", {"c", "d"}),
        "torch": [torch.Size([2, 3]), torch.float16, torch.device("cpu")],
        "by number": {0: {"step": torch.tensor(3.0)}, (1, 2): "pair"},
        "counted": Counter([5, 5, 7]),
        "ordered": OrderedDict(x=1),
    }
    read = through_a_file(plain(state))
    assert read == state
    assert {key: type(value) for key, value in read.items()} == {key: type(value) for key, value in state.items()}


def test_numbers_of_numpy_become_those_of_python() -> None:
    numbers = {
        "float": np.float64(0.5),
        "half": np.float16(0.25),
        "int": np.int64(3),
        "bool": np.bool_(True),
        "text": np.str_("x"),
        np.int32(4): 1,
    }
    copied = plain(numbers)
    assert copied == {"float": 0.5, "half": 0.25, "int": 3, "bool": True, "text": "x", 4: 1}
    assert {type(value) for value in copied.values()} == {float, int, bool, str}
    assert through_a_file(copied) == copied


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3),
        np.longdouble(1),
        np.datetime64("2026-01-01"),
        deque([1]),
        defaultdict(int),
        namedtuple("Pair", "a b")(1, 2),
        enum.Enum("Colour", "red")(1),
        enum.IntEnum("Level", "low")(1),
        Path("x"),
        len,
        object(),
        nn.Linear(1, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_not_come_back_is_refused_by_its_place(value: object) -> None:
    with pytest.raises(TypeError, match=r"^extensions/LogReport/rows/1: .*cannot be saved"):
        plain({"extensions": {"LogReport": {"rows": [0, value]}}})


def test_the_way_out_is_said() -> None:
    with pytest.raises(TypeError, match=r"torch\.as_tensor"):
        plain({"a": np.zeros(3)})
    with pytest.raises(TypeError, match="plain dict, list or tuple"):
        plain({"a": deque()})
    with pytest.raises(TypeError, match="models/main/weight: not initialized yet; run the model once"):
        plain({"models": {"main": nn.LazyLinear(3).state_dict()}})


def test_tensors_leave_their_graph_and_share_their_memory() -> None:
    weight = torch.ones(3, requires_grad=True)
    copied = plain([weight * 2, nn.Parameter(weight)])
    assert [type(tensor) for tensor in copied] == [torch.Tensor, torch.Tensor]
    assert not any(tensor.requires_grad for tensor in copied)
    assert copied[1].data_ptr() == weight.data_ptr()


def test_a_view_is_saved_without_what_it_is_a_view_of() -> None:
    large = torch.arange(1_000_000.0)
    assert size_in_a_file([large[5:8]]) > 4_000_000, "torch itself saves all of it"
    small = plain([large[5:8]])
    assert size_in_a_file(small) < 10_000
    assert small[0].tolist() == [5, 6, 7]


def test_versions_of_modules_are_kept() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    assert through_a_file(plain(state))._metadata == state._metadata  # type: ignore[attr-defined]
    assert with_tensors(plain(state), lambda tensor, _: tensor.clone())._metadata == state._metadata  # type: ignore[attr-defined]


def test_a_copy_does_not_change_with_the_state() -> None:
    state = {"weight": torch.ones(3), "more": [torch.zeros(2, 2), (torch.tensor(1), "x")], "counted": Counter("aab")}
    copied = Buffers().copy(plain(state))
    state["weight"].fill_(2)
    state["more"][0].fill_(3)
    assert copied["weight"].tolist() == [1, 1, 1]
    assert copied["more"][0].tolist() == [[0, 0], [0, 0]]
    assert copied["more"][1] == (torch.tensor(1), "x")
    assert copied["counted"] == Counter("aab")


def test_the_memory_of_a_copy_is_used_again() -> None:
    buffers, weight = Buffers(), torch.ones(3)
    first = buffers.copy([weight, torch.zeros(2)])
    weight.fill_(2)
    second = buffers.copy([weight, torch.zeros(4)])
    assert second[0].data_ptr() == first[0].data_ptr()
    assert second[0].tolist() == [2, 2, 2]
    assert second[1].shape == (4,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_copies_are_exact(dtype: torch.dtype) -> None:
    tensor = (torch.randn(3, 4) * 10).to(dtype)
    for given in (tensor, tensor.t(), tensor[:, :0], tensor[0, 0], tensor.to_sparse()):
        copied = Buffers().copy([given])[0]
        assert copied.dtype == dtype
        assert copied.shape == given.shape
        assert torch.equal(copied.to_dense(), given.to_dense())


def test_tied_weights_stay_tied_in_a_copy() -> None:
    weight = torch.randn(100, 100)
    copied = Buffers().copy({"in": weight, "out": weight, "half": weight[:50]})
    assert copied["in"] is copied["out"]
    assert size_in_a_file(copied) < 65_000
