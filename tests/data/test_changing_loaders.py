"""Loaders whose length or batch size changes while they are used, and counts that belong to a class."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from pte_tracking._data.combined import CombinedLoader
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._snapshots import rng
from tests.data.passes import BATCHES, check_resume, train

SAMPLES = 4 * BATCHES
DATA = range(SAMPLES)


class GrowingBatches:
    """Batch sampler whose batches grow with each pass, and whose passes therefore become shorter."""

    def __init__(self) -> None:
        self.batch_size = 2

    def __len__(self) -> int:
        return SAMPLES // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = random.sample(DATA, SAMPLES)
        for first in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[first : first + self.batch_size]
        self.batch_size += 1


class GrowingOrder(Sampler[int]):
    """Sampler of a curriculum, which uses more samples in each pass."""

    samples = 4

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[int]:
        order = random.sample(DATA, self.samples)
        self.samples = min(SAMPLES, self.samples + 4)
        return iter(order)


@pytest.mark.parametrize(
    "make",
    [lambda: DataLoader(DATA, batch_sampler=GrowingBatches()), lambda: DataLoader(DATA, 4, sampler=GrowingOrder())],
)
def test_order_of_a_sampler_that_changes_its_length_is_restored_without_a_warning_of_changed_data(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    check_resume(make, range(1, 2 * BATCHES))
    assert "at the snapshot" not in caplog.text


class ClassCounter:
    """Loader that counts its passes in an attribute of its class."""

    passes = 0

    def __iter__(self) -> Iterator[Tensor]:
        type(self).passes += 1
        yield from (torch.tensor([10 * self.passes + batch]) for batch in range(BATCHES))


@pytest.mark.parametrize("stop", [BATCHES + 2, 2 * BATCHES + 1])
def test_count_in_an_attribute_of_a_class_is_not_restored_on_one_object_and_warns(
    stop: int, caplog: pytest.LogCaptureFixture
) -> None:
    ClassCounter.passes = 0
    registry = LoaderRegistry()
    first: dict[str, Any] = {}
    registry.record_first_batch = first.__setitem__
    batches = train(registry.register(ClassCounter()), 3 * BATCHES)
    list(itertools.islice(batches, stop))
    saved = registry.state_dict(), rng.get_state()
    next(batches)
    ClassCounter.passes = 0
    resumed = LoaderRegistry()
    resumed.load_state_dict(*saved, first_batches=first)
    loader = ClassCounter()
    next(train(resumed.register(loader), 1))
    assert "the data after the resume differ from those before" in caplog.text
    assert "passes" not in vars(loader)


def test_loaders_in_another_order_of_their_dictionary_continue_by_their_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = itertools.cycle(["ab", "ba"])  # the uninterrupted training, then the resumed one

    def make() -> Any:
        loaders = {
            "a": DataLoader(DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(1)),
            "b": DataLoader(DATA, 4, shuffle=True),
        }
        return CombinedLoader({name: loaders[name] for name in next(names)})

    check_resume(make, [2])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_dictionary_of_loaders_yields_batches_in_the_order_of_the_dictionary() -> None:
    (batch,) = CombinedLoader({"b": [1], "a": [2]})
    assert list(batch.items()) == [("b", 1), ("a", 2)]
