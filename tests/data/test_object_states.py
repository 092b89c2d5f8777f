"""Objects with ``state_dict()`` and ``load_state_dict()`` below a loader are restored, wherever they are."""

from __future__ import annotations

import io
import itertools
import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader
from tqdm import tqdm

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._data import object_states
from pte_tracking._data.combined import CombinedLoader
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._snapshots import rng
from tests.data.passes import BATCHES, check_resume, train

SAMPLES = 4 * BATCHES
DATA: Any = list(range(SAMPLES))


class Order(Sampler[int]):
    """Sampler whose state is no number, list of numbers, or generator."""

    def __init__(self) -> None:
        self.order = deque(DATA)

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        self.order.rotate(3)
        self.order.append(self.order.popleft())
        return iter(list(self.order))

    def state_dict(self) -> dict[str, Any]:
        return {"order": list(self.order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order = deque(state["order"])


class PositionOrder(Order):
    """Sampler that continues after a position, and keeps the position of the end of a pass.

    The loaded state applies from the next pass on.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"epoch": [0, {}], "samples": {"taken": 0}}
        self.pending: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[int]:
        self.state, self.pending = (
            self.pending or {"epoch": [self.state["epoch"][0] + 1, {}], "samples": {"taken": 0}},
            None,
        )
        order = random.Random(self.state["epoch"][0]).sample(DATA, SAMPLES)
        for index in order[self.state["samples"]["taken"] :]:
            self.state["samples"]["taken"] += 1
            yield index

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pending = state


class NumberedPositionOrder(Order):
    """Sampler whose position is a number."""

    def __init__(self) -> None:
        self.order, self.taken, self.next_taken = deque(DATA), 0, None

    def __iter__(self) -> Iterator[int]:
        self.taken, self.next_taken = self.next_taken or 0, None
        if not self.taken:
            list(super().__iter__())
        for index in list(self.order)[self.taken :]:
            self.taken += 1
            yield index

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.next_taken = state["taken"]


class WeightedBatches:
    """Batch sampler with ``set_epoch()``, whose weights change with each batch."""

    def __init__(self) -> None:
        self.epoch = 0
        self.weights = {"values": np.ones(SAMPLES) / SAMPLES}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(BATCHES):
            weights = self.weights["values"]
            indices = np.random.RandomState([self.epoch, batch]).choice(SAMPLES, 4, p=weights)
            weights[indices] *= 1.5
            weights /= weights.sum()
            yield indices.tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, **self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.weights = state["epoch"], {"values": state["values"]}


class TensorBatches(WeightedBatches):
    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "values": torch.from_numpy(self.weights["values"])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.weights = state["epoch"], {"values": state["values"].numpy()}


class Stream(IterableDataset[int]):
    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        self.seen.add(len(self.seen))
        return iter([index + 100 * len(self.seen) for index in DATA])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class Collator:
    """Collate object that normalizes with the mean of all batches before."""

    def __init__(self) -> None:
        self.mean = {"value": [0.0, {"count": 0}]}

    def __call__(self, items: list[Any]) -> list[float]:
        self.mean["value"][1]["count"] += 1  # type: ignore[index]
        self.mean["value"][0] += 0.1 * float(items[0])  # type: ignore[operator]
        return [float(item) - self.mean["value"][0] for item in items]  # type: ignore[operator]

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean = state["mean"]

    def collate(self, items: list[Any]) -> list[float]:
        return self(items)


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


def loader(sampler: Any, **options: Any) -> DataLoader[int]:
    return DataLoader(DATA, batch_size=4, sampler=sampler, **options)


def shuffled(**options: Any) -> DataLoader[int]:
    return DataLoader(DATA, 4, shuffle=True, **options)


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


def resume_after(
    make: Callable[[], Any], stop: int, change: Callable[[Any], object] = lambda source: None
) -> tuple[list[Any], list[Any]]:
    """Return the batches after a stop without and with a resume. The training changes the source after two batches."""
    torch.manual_seed(0)
    registry, source, first_batches = LoaderRegistry(), make(), dict[str, Any]()
    registry.record_first_batch = first_batches.__setitem__
    batches = train(registry.register(source), 3 * BATCHES)
    for number in range(stop):
        next(batches)
        if number == 1:
            change(source)
    state = registry.state_dict(), rng.get_state()
    uninterrupted = [batch for batch, _ in batches]
    resumed = LoaderRegistry()
    resumed.load_state_dict(*state, first_batches=first_batches)
    again = resumed.register(make())
    resumed.begin()
    return uninterrupted, [batch for batch, _ in train(again, 3 * BATCHES - stop)]


@pytest.mark.parametrize("stop", [3, BATCHES + 2])
def test_state_that_the_training_changes_within_a_pass_is_restored(stop: int, caplog: pytest.LogCaptureFixture) -> None:
    def emphasize(source: Any) -> None:
        source.batch_sampler.weights["values"][:4] *= 50
        source.batch_sampler.weights["values"] /= source.batch_sampler.weights["values"].sum()

    uninterrupted, resumed = resume_after(LOADERS["batch sampler with set_epoch"], stop, emphasize)
    assert resumed == uninterrupted
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_state_that_cannot_be_loaded_within_a_pass_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def skip_to_later_epoch(source: Any) -> None:
        source.sampler.state["epoch"][1]["later"] = 7

    resume_after(LOADERS["sampler with a position"], 3, skip_to_later_epoch)
    assert "loader 'main': sampler (PositionOrder) has another state than at the snapshot" in caplog.text


class Unsavable(Order):
    def state_dict(self) -> dict[str, Any]:
        return {"order": [self.order]}


class Unready(Order):
    """Sampler without a state before its first pass."""

    def state_dict(self) -> dict[str, Any]:
        if self.order[0] == 0:
            raise RuntimeError("not started")
        return super().state_dict()


class Failing(Order):
    def state_dict(self) -> dict[str, Any]:
        raise RuntimeError("not supported here")


class Refusing(Order):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise KeyError("epoch")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Unsavable, "the state of sampler (Unsavable) is not part of the snapshot: state_dict()/order/0: a value of "),
        (Failing, "the state of sampler (Failing) is not part of the snapshot: RuntimeError: not supported here."),
        (Refusing, "sampler (Refusing) refused its state: KeyError: 'epoch'."),
    ],
)
def test_state_that_is_not_saved_or_refused_is_named_once(
    make: Any, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    resume_after(lambda: loader(make()), BATCHES + 2)
    names = {record.getMessage() for record in caplog.records if "sampler (" in record.getMessage()}
    assert len(names) == 1
    assert expected in names.pop()


def test_state_that_is_larger_than_the_limit_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_states, "MAX_BYTES", 100)
    resume_after(lambda: loader(Order()), BATCHES + 2)
    assert "the state of sampler (Order) is not part of the snapshot: state_dict(): the state has" in caplog.text


def test_object_without_a_state_before_its_first_pass_is_restored(caplog: pytest.LogCaptureFixture) -> None:
    uninterrupted, resumed = resume_after(lambda: loader(Unready()), 2)
    assert resumed == uninterrupted
    uninterrupted, resumed = resume_after(lambda: loader(Unready()), BATCHES + 2)
    assert resumed == uninterrupted
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("make_other", "expected"),
    [
        (shuffled, "sampler (RandomSampler) refused its state: TypeError: it has no load_state_dict()."),
        (lambda: [[0]] * BATCHES, "the snapshot contains the state of sampler, which this loader does not refer to"),
    ],
)
def test_object_that_is_missing_after_the_resume_is_named(
    make_other: Any, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    loaders = itertools.cycle([lambda: loader(Order()), make_other])
    resume_after(lambda: next(loaders)(), BATCHES + 2)
    assert expected in caplog.text


def test_object_that_trains_a_model_is_not_restored_by_a_function_of_the_loader() -> None:
    class Training:
        def __init__(self) -> None:
            self.model, self.loads = nn.Linear(1, 1), 0

        def collate(self, items: list[int]) -> list[int]:
            return items

        def state_dict(self) -> dict[str, Any]:
            raise AssertionError("called")

        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise AssertionError("called")

    uninterrupted, resumed = resume_after(lambda: shuffled(collate_fn=Training().collate), 2)
    assert resumed == uninterrupted


def test_methods_with_other_arguments_are_not_called() -> None:
    class Versioned(Order):
        def state_dict(self, version: int) -> dict[str, Any]:  # type: ignore[override]
            raise AssertionError("called")

    resume_after(lambda: loader(Versioned()), 2)
