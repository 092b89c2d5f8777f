"""Digests of batches of any type, which are equal for equal data and never raise."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import enum
import json
import subprocess
import sys
import weakref
from collections import OrderedDict, UserDict, deque
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pte_tracking._data import batch_content
from pte_tracking._data.batch_content import Content
from pte_tracking._data.batch_digest import (
    BatchDigest,
    differing_parts,
    digest_new_batch,
    digest_used_batch,
    is_content_equal,
)


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


@dataclasses.dataclass
class Sample:
    image: Tensor
    label: int


@dataclasses.dataclass(slots=True)
class Slotted:
    image: Tensor
    label: int


class Storage:
    """Storage of a graph, as in PyTorch Geometric: a mapping, and a reference to the object that owns it."""

    def __init__(self, owner: Any, content: dict[str, Any]) -> None:
        self._mapping = content
        self._parent = weakref.ref(owner)


class Graph:
    def __init__(self, **content: Any) -> None:
        self.__dict__["_store"] = Storage(self, content)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("no code of the batch runs")


class Custom(Tensor):
    """Subclass without its own dispatch, as the tensors of torchvision."""


class Color(enum.IntEnum):
    RED = 1


class Unreadable:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise AssertionError("no property of the batch runs")

    def __len__(self) -> int:
        raise AssertionError


def big(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape).to(dtype)


def first(batch: object) -> tuple[str, int | None]:
    """Return the kind and the checksum of a batch of one part."""
    return digest_new_batch(batch)[""]


CHANGED: dict[str, tuple[Any, Any, str]] = {
    "tensor": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), ""),
    "bfloat16": (torch.ones(2).bfloat16(), torch.zeros(2).bfloat16(), ""),
    "float8": (torch.ones(2).to(torch.float8_e4m3fn), torch.zeros(2).to(torch.float8_e4m3fn), ""),
    "bool": (torch.tensor([True]), torch.tensor([False]), ""),
    "complex": (torch.tensor([1j]), torch.tensor([2j]), ""),
    "conjugate": (torch.tensor([1j]).conj(), torch.tensor([2j]).conj(), ""),
    "scalar": (torch.tensor(1), torch.tensor(2), ""),
    "sparse": (torch.eye(3).to_sparse(), (2 * torch.eye(3)).to_sparse(), ""),
    "subclass": (torch.ones(2).as_subclass(Custom), torch.zeros(2).as_subclass(Custom), ""),
    "parameter": (nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2)), ""),
    "list": ([torch.ones(2), torch.ones(1)], [torch.ones(2), torch.zeros(1)], "[1]"),
    "dict": ({"a": torch.ones(2), 3: 4}, {"a": torch.ones(2), 3: 5}, "[3]"),
    "nested": ({"a": ({"b": [7]},)}, {"a": ({"b": [8]},)}, "['a'][0]['b'][0]"),
    "ordered": (OrderedDict(a=1), OrderedDict(a=2), "['a']"),
    "user_dict": (UserDict(a=torch.ones(1)), UserDict(a=torch.zeros(1)), ".data['a']"),
    "deque": (deque([1]), deque([2]), "[0]"),
    "named_tuple": (Pair(torch.ones(1), torch.ones(1)), Pair(torch.ones(1), torch.zeros(1)), ".y"),
    "dataclass": (Sample(torch.ones(1), 1), Sample(torch.ones(1), 2), ".label"),
    "slots": (Slotted(torch.ones(1), 1), Slotted(torch.ones(1), 2), ".label"),
    "graph": (Graph(x=torch.ones(1)), Graph(x=torch.zeros(1)), "._store._mapping['x']"),
    "array": (np.ones(3), np.zeros(3), ""),
    "array_of_dates": (np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-02"], "M8[D]"), ""),
    "structured_array": (np.array([(1, 2.0)], "i4,f8"), np.array([(1, 3.0)], "i4,f8"), ""),
    "numpy_number": (np.float64(1), np.float64(2), ""),
    "text": ("a", "b", ""),
    "surrogate": ("a\ud800", "b\ud800", ""),
    "bytes": (b"a", b"b", ""),
    "int": (1, 2, ""),
    "float": (1.0, 2.0, ""),
    "type": (1, 1.0, ""),
    "length": ([1, 2], [1, 2, 3], ""),
}
STRANGE: dict[str, Any] = {
    "none": None,
    "empty": torch.empty(0, 3),
    "meta": torch.empty(3, device="meta"),
    "nested_tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(1)], layout=torch.jagged),
    "negative": torch.randn(2, dtype=torch.complex64).conj().imag,
    "freed": torch.ones(2),
    "objects": np.array([object()]),
    "huge_int": 10**6000,
    "set": {1, 2},
    "module": nn.Linear(1, 1),
    "class": Tensor,
    "function": differing_parts,
    "library": torch,
    "decimal": decimal.Decimal(1),
    "enum": Color.RED,
    "unreadable": Unreadable(),
    "key": {(1, 2): 3, None: 4, Unreadable(): 5},
    "iterator": iter([1]),
    "generator": (item for item in [1]),
    "counter": collections.Counter("ab"),
}
STRANGE["freed"].untyped_storage().resize_(0)


@pytest.mark.parametrize(("batch", "changed", "path"), CHANGED.values(), ids=CHANGED)
def test_digest_of_changed_part_differs_at_its_path(batch: Any, changed: Any, path: str) -> None:
    assert differing_parts(digest_new_batch(batch), digest_new_batch(batch)) == []
    assert differing_parts(digest_new_batch(batch), digest_new_batch(changed)) == [path]


@pytest.mark.parametrize("batch", STRANGE.values(), ids=STRANGE)
def test_digest_of_strange_value_is_a_digest(batch: Any) -> None:
    digest = digest_new_batch([batch, 5])
    assert digest == digest_new_batch([batch, 5])
    assert digest["[1]"] == digest_new_batch([0, 5])["[1]"]
    assert [kind for kind, _ in digest_used_batch([batch, 5]).values()] == [kind for kind, _ in digest.values()]


def test_digest_of_value_that_raises_everywhere_is_empty() -> None:
    class Raising:
        @property
        def __class__(self) -> Any:
            raise RuntimeError

    assert digest_new_batch(Raising()) == {}


def test_digest_of_cyclic_containers_ends() -> None:
    batch: list[Any] = [1]
    batch.append(batch)
    owner = {"batch": batch}
    batch.append(owner)
    assert digest_new_batch(owner)["['batch'][0]"][0] == "int"


@pytest.mark.filterwarnings("ignore:.*deprecated")  # torch warns once in a process
def test_digest_of_quantized_tensor_has_type_only() -> None:
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    assert first(quantized) == ("qint8[3]", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bfloat16, torch.complex64, torch.int64])
def test_digest_of_any_memory_layout_is_equal(dtype: torch.dtype) -> None:
    image = big(8, 3, 120, 130, dtype=dtype)
    expected = digest_new_batch(image)
    assert digest_new_batch(image.to(memory_format=torch.channels_last)) == expected
    assert digest_new_batch(image.transpose(0, 3).contiguous().transpose(0, 3)) == expected
    assert digest_new_batch(torch.cat([image, image])[:8]) == expected


def test_digest_of_large_conjugate_tensor_reads_its_values() -> None:
    values = big(300, 300, dtype=torch.complex64)
    assert first(values.conj())[1] == first(values.clone().conj())[1] is not None
    assert first(values.conj()) != first((values + 1).conj())


@pytest.mark.parametrize("index", [0, 5_000_000, -1])
def test_digest_of_large_tensor_covers_start_and_end(index: int) -> None:
    batch = torch.zeros(8, 3, 500, 500)
    digest = digest_new_batch(batch)
    batch.view(-1)[index] = 1
    assert (digest_new_batch(batch) != digest) == (index in (0, -1))


def test_digest_of_shuffled_large_batch_differs() -> None:
    batch = torch.randn(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert differing_parts(digest_new_batch(batch), digest_new_batch(batch.flip(0))) == [""]
    assert differing_parts(digest_new_batch(batch.numpy()), digest_new_batch(batch.flip(0).numpy())) == [""]


sizes = st.lists(st.integers(0, 200_000), max_size=12)


@given(sizes, st.sampled_from([torch.uint8, torch.float32, torch.float64]), st.booleans())
def test_digest_reads_at_most_64_kilobytes(sizes: list[int], dtype: torch.dtype, is_contiguous: bool) -> None:
    batch = [torch.zeros(size, 1 if is_contiguous else 2, dtype=dtype)[:, 0] for size in sizes]
    values: list[Any] = [*batch, *(tensor.numpy() for tensor in batch), *("x" * size for size in sizes)]
    read = 0

    def content_of(part: object) -> Content:
        content = batch_content.content_of(part)

        def count(limit: int) -> bytes:
            nonlocal read
            data = content.read(limit)
            read += len(data)
            return data

        return content._replace(read=count)

    with mock.patch("pte_tracking._data.batch_digest.content_of", content_of):
        digest_new_batch(values)
    total = sum(tensor.nbytes * 2 for tensor in batch) + sum(sizes)
    assert min(total, 1 << 15) <= read <= 1 << 16


def test_digest_of_many_parts_is_short() -> None:
    batch = [f"text {index}" for index in range(200)]
    digest = digest_new_batch(batch)
    assert len(digest) == 16
    assert len(json.dumps(digest)) < 1000
    assert differing_parts(digest, digest_new_batch([*batch[:-1], "other"])) == ["..."]


def test_digest_of_used_batch_leaves_out_modified_parts() -> None:
    batch = {"x": torch.ones(2), "y": torch.ones(2), "z": np.ones(2)}
    before = digest_new_batch(batch)
    batch["x"].add_(1)
    after = digest_used_batch(batch)
    assert after == {"['x']": ("float32[2]", None), "['y']": before["['y']"], "['z']": ("numpy float64[2]", None)}
    assert differing_parts(after, before) == []
    assert is_content_equal(after, before)


def test_digest_of_used_inference_tensor_has_type_only() -> None:
    with torch.inference_mode():
        batch = torch.ones(2)
    assert digest_used_batch(batch) == {"": ("float32[2]", None)}
    assert first(batch)[1] is not None


def test_digest_of_batch_with_removed_key_does_not_differ() -> None:
    batch = {"x": torch.ones(2), "y": torch.ones(2)}
    before = digest_new_batch(batch)
    del batch["y"]
    assert differing_parts(digest_used_batch(batch), before) == []


def test_digest_draws_no_random_number_and_ignores_default_device() -> None:
    batch = big(8, 3, 100, 100).transpose(0, 1)
    expected = digest_new_batch(batch)
    state = torch.get_rng_state()
    with torch.device("meta"):
        assert digest_new_batch(batch) == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_digest_in_another_process_is_equal() -> None:
    program = (
        "import json, torch\n"
        "from pte_tracking._data.batch_digest import digest_new_batch\n"
        "batch = {key: 1 for key in {'a', 'b', 'c', 'd'}} | {'x': torch.arange(50_000)}\n"
        "print(json.dumps(digest_new_batch(batch)))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1


def test_content_without_common_parts_is_not_equal() -> None:
    empty: BatchDigest = {}
    assert not is_content_equal(empty, digest_new_batch(torch.ones(1)))
    assert not is_content_equal({"": ("float32[1]", None)}, digest_new_batch(torch.ones(1)))
