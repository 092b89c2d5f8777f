"""Plain states are readable by torch.load with its safe default. Other states raise an error with the position."""

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
from pte_tracking._snapshots.plain_state import map_tensors, to_plain


def save_and_load(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def measure_saved_size(state: Any) -> int:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return len(buffer.getvalue())


def test_to_plain_supported_values_survive_save_and_load() -> None:
    state = {
        "numbers": [1, 2.5, True, None, 3j, -(2**70), float("inf")],
        "texts": ("a", b"b", {"c", "d"}),
        "torch": [torch.Size([2, 3]), torch.float16, torch.device("cpu")],
        "by number": {0: {"step": torch.tensor(3.0)}, (1, 2): "pair"},
        "counted": Counter([5, 5, 7]),
        "ordered": OrderedDict(x=1),
    }
    loaded = save_and_load(to_plain(state))
    assert loaded == state
    assert {key: type(value) for key, value in loaded.items()} == {key: type(value) for key, value in state.items()}


def test_to_plain_numpy_scalars_become_python_values() -> None:
    numbers = {
        "float": np.float64(0.5),
        "half": np.float16(0.25),
        "int": np.int64(3),
        "bool": np.bool_(True),
        "text": np.str_("x"),
        np.int32(4): 1,
    }
    copied = to_plain(numbers)
    assert copied == {"float": 0.5, "half": 0.25, "int": 3, "bool": True, "text": "x", 4: 1}
    assert {type(value) for value in copied.values()} == {float, int, bool, str}
    assert save_and_load(copied) == copied


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
def test_to_plain_unsupported_value_raises_with_its_path(value: object) -> None:
    with pytest.raises(TypeError, match=r"^extensions/LogReport/rows/1: .*cannot be saved"):
        to_plain({"extensions": {"LogReport": {"rows": [0, value]}}})


def test_to_plain_error_suggests_solution() -> None:
    with pytest.raises(TypeError, match=r"torch\.as_tensor"):
        to_plain({"a": np.zeros(3)})
    with pytest.raises(TypeError, match="plain dict, list, or tuple"):
        to_plain({"a": deque()})
    with pytest.raises(TypeError, match=r"models/main/weight: the parameter is not initialized\. Run the model once"):
        to_plain({"models": {"main": nn.LazyLinear(3).state_dict()}})


def test_to_plain_tensors_are_detached_and_share_memory() -> None:
    weight = torch.ones(3, requires_grad=True)
    copied = to_plain([weight * 2, nn.Parameter(weight)])
    assert [type(tensor) for tensor in copied] == [torch.Tensor, torch.Tensor]
    assert not any(tensor.requires_grad for tensor in copied)
    assert copied[1].data_ptr() == weight.data_ptr()


def test_to_plain_view_is_saved_without_its_base() -> None:
    large = torch.arange(1_000_000.0)
    assert measure_saved_size([large[5:8]]) > 4_000_000, "torch.save writes the complete storage"
    small = to_plain([large[5:8]])
    assert measure_saved_size(small) < 10_000
    assert small[0].tolist() == [5, 6, 7]


def test_to_plain_and_map_tensors_keep_module_versions() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    assert save_and_load(to_plain(state))._metadata == state._metadata  # type: ignore[attr-defined]
    assert map_tensors(to_plain(state), lambda tensor, _: tensor.clone())._metadata == state._metadata  # type: ignore[attr-defined]


def test_buffers_copy_does_not_change_with_state() -> None:
    state = {"weight": torch.ones(3), "more": [torch.zeros(2, 2), (torch.tensor(1), "x")], "counted": Counter("aab")}
    copied = Buffers().copy(to_plain(state))
    state["weight"].fill_(2)
    state["more"][0].fill_(3)
    assert copied["weight"].tolist() == [1, 1, 1]
    assert copied["more"][0].tolist() == [[0, 0], [0, 0]]
    assert copied["more"][1] == (torch.tensor(1), "x")
    assert copied["counted"] == Counter("aab")


def test_buffers_copy_reuses_memory() -> None:
    buffers, weight = Buffers(), torch.ones(3)
    first = buffers.copy([weight, torch.zeros(2)])
    weight.fill_(2)
    second = buffers.copy([weight, torch.zeros(4)])
    assert second[0].data_ptr() == first[0].data_ptr()
    assert second[0].tolist() == [2, 2, 2]
    assert second[1].shape == (4,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_buffers_copy_keeps_dtype_shape_and_values(dtype: torch.dtype) -> None:
    tensor = (torch.randn(3, 4) * 10).to(dtype)
    for source in (tensor, tensor.t(), tensor[:, :0], tensor[0, 0], tensor.to_sparse()):
        copied = Buffers().copy([source])[0]
        assert copied.dtype == dtype
        assert copied.shape == source.shape
        assert torch.equal(copied.to_dense(), source.to_dense())


def test_buffers_copy_tied_weights_stay_tied() -> None:
    weight = torch.randn(100, 100)
    copied = Buffers().copy({"in": weight, "out": weight, "half": weight[:50]})
    assert copied["in"] is copied["out"]
    assert measure_saved_size(copied) < 65_000
