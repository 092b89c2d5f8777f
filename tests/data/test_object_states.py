"""Objects with ``state_dict()`` and ``load_state_dict()`` below a loader are restored, wherever they are."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from tqdm import tqdm

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._data.combined import CombinedLoader
from tests.data.passes import BATCHES, check_resume, resume_after
from tests.data.state_objects import (
    DATA,
    SAMPLES,
    Collator,
    NumberedPositionOrder,
    Order,
    PositionOrder,
    Stream,
    TensorBatches,
    WeightedBatches,
    loader,
    shuffled,
)


class Mixture:
    """Loader that takes batches from several loaders in turn."""

    def __init__(self) -> None:
        self.loaders = [shuffled(generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
        self.counts = [[0, 0]]

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Any]:
        iterators = [iter(loader) for loader in self.loaders]
        for number in range(BATCHES):
            self.counts[0][number % 2] += 1
            yield next(iterators[number % 2]) + 100 * self.counts[0][0]

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts = state["counts"]


def with_captured_collator() -> DataLoader[int]:
    collator = Collator()
    return shuffled(collate_fn=lambda items: collator(items))


def stateful(**options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # raised by torchdata
        return StatefulDataLoader(DATA, **options)


LOADERS: dict[str, Callable[[], Any]] = {
    "sampler": lambda: loader(Order()),
    "sampler with a position": lambda: loader(PositionOrder()),
    "sampler with a numbered position": lambda: loader(NumberedPositionOrder()),
    "sampler in a batch sampler": lambda: DataLoader(DATA, batch_sampler=BatchSampler(PositionOrder(), 4, False)),
    "batch sampler with set_epoch": lambda: DataLoader(DATA, batch_sampler=WeightedBatches()),
    "stream": lambda: DataLoader(Stream(), 4),
    "collate object": lambda: shuffled(collate_fn=Collator()),
    "method of a collate object": lambda: shuffled(collate_fn=Collator().collate),
    "captured collate object": with_captured_collator,
    "progress bar": lambda: tqdm(loader(Order()), file=io.StringIO()),
    "wrapped loader with a state": lambda: tqdm(Mixture(), file=io.StringIO()),
    "dictionary of loaders": lambda: CombinedLoader({"a": shuffled(), "b": loader(PositionOrder())}),
    "stateful loader, sampler": lambda: stateful(batch_size=4, sampler=Order()),
    "stateful loader, sampler with a position": lambda: stateful(batch_size=4, sampler=PositionOrder()),
    "stateful loader, collate object": lambda: stateful(batch_size=4, shuffle=True, collate_fn=Collator()),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_state_of_an_object_below_the_loader_is_restored_after_any_batch(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_resume(LOADERS[kind], range(1, 2 * BATCHES + 2))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("make", [Order, PositionOrder, NumberedPositionOrder])
def test_state_of_a_sampler_with_workers_is_restored(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    check_resume(lambda: loader(make(), num_workers=2), [2, BATCHES, BATCHES + 1])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("make", [Order, NumberedPositionOrder, TensorBatches])
@pytest.mark.parametrize("stop", [2, BATCHES, BATCHES + 3])
def test_sampler_that_is_a_state_object_is_not_advanced_twice(make: Any, stop: int, tmp_path: Path) -> None:
    def run(folder: Path, iterations: int, *, resume: bool = False) -> list[Any]:
        torch.manual_seed(0)
        sampler = make()
        manager = pte.ExtensionsManager(
            nn.Linear(1, 1),
            3,
            [extensions.snapshot(trigger=(1, "iteration"))],
            out_dir=folder,
            state_objects={"sampler": sampler},
        )
        if resume:
            manager.resume()
        option = {"batch_sampler": sampler} if make is TensorBatches else {"batch_size": 4, "sampler": sampler}
        seen = []
        for batch in manager.batches(DataLoader(DATA, **option)):
            with manager.run_iteration():
                seen.append(batch.tolist())
            if len(seen) == iterations:
                break
        manager.close()
        return seen

    whole = run(tmp_path / "whole", 3 * BATCHES)
    assert run(tmp_path / "run", stop) == whole[:stop]
    assert run(tmp_path / "run", 3 * BATCHES, resume=True) == whole[stop:]


@pytest.mark.parametrize("stop", [3, BATCHES + 2])
def test_state_that_the_training_changes_within_a_pass_is_restored(stop: int, caplog: pytest.LogCaptureFixture) -> None:
    def emphasize(source: Any) -> None:
        source.batch_sampler.weights["values"][:4] *= 50
        source.batch_sampler.weights["values"] /= source.batch_sampler.weights["values"].sum()

    uninterrupted, resumed = resume_after(LOADERS["batch sampler with set_epoch"], stop, emphasize)
    assert resumed == uninterrupted
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_position_that_is_loaded_within_a_pass_does_not_apply_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    uninterrupted, resumed = resume_after(
        lambda: loader(NumberedPositionOrder()), 3, lambda source: source.sampler.order.rotate(2)
    )
    assert resumed == uninterrupted
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


class PrioritizedOrder(Order):
    """Sampler whose weights follow from the drawn indices and from the training."""

    def __init__(self) -> None:
        self.weights = torch.ones(SAMPLES)
        self.generator = torch.Generator().manual_seed(3)

    def __iter__(self) -> Iterator[int]:
        for _ in range(SAMPLES):
            index = int(torch.multinomial(self.weights, 1, generator=self.generator))
            self.weights[index] *= 0.9
            yield index

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights = state["weights"]


@pytest.mark.parametrize("stop", [2, BATCHES + 2])
def test_state_that_reading_and_the_training_change_is_restored(stop: int, caplog: pytest.LogCaptureFixture) -> None:
    def prioritize(source: Any) -> None:
        source.sampler.weights[:3] *= 5

    uninterrupted, resumed = resume_after(lambda: loader(PrioritizedOrder()), stop, prioritize)
    assert resumed == uninterrupted
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


class GrowingOrder(Order):
    """Sampler whose length is part of its state."""

    def __init__(self) -> None:
        self.options = {"samples": [4]}

    def __len__(self) -> int:
        return self.options["samples"][0]

    def __iter__(self) -> Iterator[int]:
        order = random.Random(len(self)).sample(DATA, len(self))
        self.options["samples"][0] = min(SAMPLES, len(self) + 4)
        return iter(order)

    def state_dict(self) -> dict[str, Any]:
        return self.options

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.options = state


@pytest.mark.parametrize("stop", range(1, 8))
def test_length_that_is_part_of_a_state_is_no_change_of_the_data(stop: int, caplog: pytest.LogCaptureFixture) -> None:
    uninterrupted, resumed = resume_after(lambda: loader(GrowingOrder()), stop)
    assert resumed == uninterrupted
    assert "at the snapshot" not in caplog.text
