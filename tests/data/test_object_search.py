"""Search for the objects below a loader, and the numbers in their attributes."""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from pte_tracking._data.counters import changed_names, counters_of, set_counters
from pte_tracking._data.object_search import walk


class Node:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("__weakref__", "child", "empty")

    def __init__(self, child: Any) -> None:
        self.child = child


class Careful:
    """Object whose properties and attribute access fail."""

    @property
    def value(self) -> Any:
        raise AssertionError("evaluated")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was requested")


def paths(root: Any) -> list[str]:
    return [path for path, _ in walk(root)]


def test_walk_returns_paths_through_attributes_slots_and_containers() -> None:
    generator = torch.Generator()
    captured = np.random.default_rng()
    root = Node(
        a=Slotted([{"x": (generator,)}]),
        b=functools.partial(print, Node()),
        c=Node().__init__,  # type: ignore[misc]
        d=lambda: captured,
    )
    assert {"a", "a.child", "a.child[0]['x'][0]", "b.args[0]", "c.__self__", "d.__closure__.captured"} <= {*paths(root)}


def test_walk_of_a_cycle_ends() -> None:
    root = Node()
    root.root = root
    root.items = [root]
    assert paths(root) == ["", "items"]


def test_walk_evaluates_no_properties_and_skips_data() -> None:
    model = nn.Linear(1, 1)
    root = Node(careful=Careful(), model=model, tensor=torch.ones(2), array=np.ones(2), rows=[Node()] * 65, text="a")
    assert paths(root) == ["", "careful", "rows"]


def test_walk_skips_proxies_of_objects_that_are_gone() -> None:
    root = Node(proxy=weakref.proxy(Node()), module=types)
    assert paths(root) == [""]


def test_walk_of_many_objects_is_bounded() -> None:
    root = Node(items=[[[Node() for _ in range(60)] for _ in range(60)] for _ in range(60)])
    assert len(paths(root)) <= 2000


def test_walk_of_a_loader_finds_its_sampler_and_not_its_data() -> None:
    loader = DataLoader(TensorDataset(torch.ones(4)), 2, shuffle=True, generator=torch.Generator())
    assert {"sampler", "batch_sampler", "generator", "dataset"} <= {*paths(loader)}


class NumberSampler(Sampler[int]):
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


VALUES: dict[str, tuple[Any, Any]] = {
    "integer": (0, 3),
    "boolean": (False, True),
    "float": (0.0, 0.5),
    "none": (None, 3),
    "list": ([1, 2, 3], [3, 1, 2]),
    "long list": (list(range(100)), list(range(100))[::-1]),
    "large numbers": ([2**70] * 100, [2**71] * 100),
    "tuple": ((1, 2), (2, 1)),
    "dictionary": ({"epoch": 0}, {"epoch": 1}),
    "tensor": (torch.arange(3), torch.arange(3).flip(0)),
    "array": (np.arange(3), np.arange(3)[::-1].copy()),
    "list instead of none": (None, [1, 2]),
    "array instead of none": (None, np.ones(2)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_counters_restored_in_a_new_sampler_have_the_saved_value_and_type(kind: str) -> None:
    first, later = VALUES[kind]
    saved = counters_of("", NumberSampler(value=later))
    sampler = NumberSampler(value=first)
    set_counters(sampler, saved)
    assert type(vars(sampler)["value"]) is type(later)
    assert np.array_equal(vars(sampler)["value"], later) if kind.startswith("array") else True
    assert not changed_names(saved, counters_of("", sampler))


def test_counters_of_a_sequence_are_restored_in_place() -> None:
    order = [1, 2, 3]
    sampler = NumberSampler(order=order)
    set_counters(sampler, {"order": {"list": [3, 2, 1]}})
    assert order == [3, 2, 1]


def test_counters_of_another_kind_or_length_are_not_restored() -> None:
    sampler = NumberSampler(order=[1, 2], generator=torch.Generator())
    before = dict(vars(sampler))
    set_counters(sampler, {"order": {"list": [1, 2, 3]}, "generator": 3, "__len__": 3, "set_state": 1})
    assert {name: vars(sampler)[name] for name in before} == before
    assert "__len__" not in vars(sampler)


def test_counters_do_not_run_property_setters() -> None:
    class Guarded(NumberSampler):
        @property
        def epoch(self) -> int:
            return 0

        @epoch.setter
        def epoch(self, value: int) -> None:
            raise AssertionError("called")

    set_counters(Guarded(), {"epoch": 3})


def test_counters_of_slots_are_restored() -> None:
    slotted = Slotted(0)
    set_counters(slotted, {"child": 3})
    assert slotted.child == 3


def test_counters_of_other_objects_are_integers_only() -> None:
    node = Node(count=3, text="a", rate=0.5, order=[1, 2], generator=torch.Generator())
    assert counters_of("loader", node) == {"count": 3}
    assert counters_of("collate_fn.__self__", node) == {}
