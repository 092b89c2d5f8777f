"""The order of the data follows from objects below the loader: samplers, generators, counters, wrapped loaders."""

from __future__ import annotations

import functools
import io
import itertools
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torchdata.nodes
import webdataset
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
)
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler
from tqdm import tqdm

from pte_tracking._data.combined import CombinedLoader
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._snapshots import rng
from tests.data.passes import BATCHES, check_resume, seed_everything, train

SAMPLES = 4 * BATCHES
DATA: Any = list(range(SAMPLES))


class Order(Sampler[int]):
    """Sampler whose subclasses define the order."""

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        return iter(self.order())

    def order(self) -> list[int]:
        raise NotImplementedError


class NumpyOrder(Order):
    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def order(self) -> list[int]:
        return [int(index) for index in self.generator.permutation(SAMPLES)]


class PythonOrder(Order):
    def __init__(self) -> None:
        self.random = random.Random(3)

    def order(self) -> list[int]:
        return self.random.sample(range(SAMPLES), SAMPLES)


class TorchDraws(Order):
    """Sampler that draws each index when it is requested."""

    def __init__(self) -> None:
        self.source = torch.Generator().manual_seed(3)

    def __iter__(self) -> Iterator[int]:
        return (int(torch.randint(SAMPLES, (1,), generator=self.source)) for _ in range(SAMPLES))


class CountedOrder(Order):
    epoch = 0

    def order(self) -> list[int]:
        self.epoch += 1
        return random.Random(self.epoch).sample(range(SAMPLES), SAMPLES)


class DictionaryOrder(Order):
    def __init__(self) -> None:
        self.progress = {"epoch": 0}

    def order(self) -> list[int]:
        self.progress["epoch"] += 1
        return random.Random(self.progress["epoch"]).sample(range(SAMPLES), SAMPLES)


class ShuffledList(Order):
    """Sampler that shuffles its list further in each pass."""

    def __init__(self, indices: Any) -> None:
        self.indices = indices

    def order(self) -> list[int]:
        if self.indices is None:
            self.indices = list(DATA)
        random.Random(5).shuffle(self.indices)
        return [int(index) for index in self.indices]


class NestedOrder(Order):
    def __init__(self) -> None:
        self.outer, self.options = CountedOrder(), {"inner": [PythonOrder()]}

    def order(self) -> list[int]:
        outer = list(self.outer)
        return [outer[index] for index in self.options["inner"][0]]


class SlottedOrder:
    """Sampler of no known class, without ``__dict__``."""

    __slots__ = ("count", "generator")

    def __init__(self) -> None:
        self.generator, self.count = np.random.default_rng(1), 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        self.count += 1
        return iter(np.roll(self.generator.permutation(SAMPLES), self.count).tolist())


class AugmentedData(Dataset[float]):
    def __init__(self) -> None:
        self.generator = np.random.default_rng(2)
        self.transforms = [functools.partial(self.add, scale=0.5), self.add]

    def add(self, value: float, scale: float = 1.0) -> float:
        return value + scale * float(self.generator.random())

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> float:
        value = float(index)
        for transform in self.transforms:
            value = transform(value)
        return value


class EpochData(Dataset[int]):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> int:
        return index + 100 * self.epoch


class CountedStream(IterableDataset[int]):
    def __init__(self) -> None:
        self._epoch = 0

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        return iter(random.Random(self._epoch).sample(DATA, SAMPLES))


class BufferedStream(IterableDataset[int]):
    """Stream with a shuffle buffer and a generator of its own."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    def __iter__(self) -> Iterator[int]:
        buffer: list[int] = []
        for value in DATA:
            buffer.append(value)
            if len(buffer) > 6:
                yield buffer.pop(self.random.randrange(len(buffer)))
        yield from buffer


class CountingLoader:
    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[list[int]]:
        self.epoch += 1
        order = random.Random(self.epoch).sample(DATA, SAMPLES)
        return (order[first : first + 4] for first in range(0, SAMPLES, 4))


class SeedingLoader(DataLoader[int]):
    epoch = 0

    def __iter__(self) -> Any:
        self.epoch += 1
        self.generator.manual_seed(self.epoch)
        return super().__iter__()


class Wrapper:
    """Wrapper that passes all attributes of its loader on, as some libraries do."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_loader"), name)

    def __iter__(self) -> Iterator[Any]:
        yield from self._loader


def loader(sampler: Any, **options: Any) -> DataLoader[int]:
    return DataLoader(DATA, batch_size=4, sampler=sampler, **options)


def shuffled(**options: Any) -> DataLoader[int]:
    return DataLoader(DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(4), **options)


def with_captured_generator() -> DataLoader[int]:
    generator = np.random.default_rng(4)
    return DataLoader(DATA, 4, shuffle=True, collate_fn=lambda batch: [item + generator.random() for item in batch])


def stateful(data: Any = DATA, **options: Any) -> Iterable[Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # raised by torchdata
        return StatefulDataLoader(data, batch_size=4, **options)


def nodes(prefetch: int) -> Any:
    sampler = RandomSampler(DATA, generator=torch.Generator().manual_seed(4))
    batches: Any = torchdata.nodes.Batcher(torchdata.nodes.MapStyleWrapper(DATA, sampler), 4)
    return torchdata.nodes.Loader(torchdata.nodes.Prefetcher(batches, prefetch) if prefetch else batches)


class Source(IterableDataset[tuple[int]]):
    def __iter__(self) -> Iterator[tuple[int]]:
        return ((index,) for index in DATA)


def pipeline(shuffle: Any) -> Any:
    return webdataset.DataPipeline(Source(), shuffle, webdataset.batched(4))


def prepared(num_workers: int = 0, **options: Any) -> Any:
    from accelerate.data_loader import prepare_data_loader  # slow to import

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # raised by torchdata
        return prepare_data_loader(
            DataLoader(DATA, 4, shuffle=True, num_workers=num_workers),
            num_processes=1,
            process_index=0,
            put_on_device=False,
            **options,
        )


def silent(loader: Any) -> Any:
    return tqdm(loader, file=io.StringIO())


LOADERS: dict[str, Callable[[], Any]] = {
    "numpy generator": lambda: loader(NumpyOrder(np.random.default_rng(3))),
    "numpy philox": lambda: loader(NumpyOrder(np.random.Generator(np.random.Philox(3)))),
    "numpy random state": lambda: loader(NumpyOrder(np.random.RandomState(3))),
    "python generator": lambda: loader(PythonOrder()),
    "torch generator of a sampler": lambda: loader(TorchDraws()),
    "epoch counter": lambda: loader(CountedOrder()),
    "epoch counter in a dictionary": lambda: loader(DictionaryOrder()),
    "list shuffled in place": lambda: loader(ShuffledList(list(DATA))),
    "array shuffled in place": lambda: loader(ShuffledList(np.arange(SAMPLES))),
    "list created in the first pass": lambda: loader(ShuffledList(None)),
    "nested samplers": lambda: loader(NestedOrder()),
    "sampler with slots": lambda: loader(SlottedOrder()),
    "sampler in a batch sampler": lambda: DataLoader(DATA, batch_sampler=BatchSampler(CountedOrder(), 4, False)),
    "batch sampler as a sampler": lambda: DataLoader(
        np.arange(SAMPLES), batch_size=None, sampler=BatchSampler(PythonOrder(), 4, False)
    ),
    "generators of the data": lambda: DataLoader(AugmentedData(), 4, shuffle=True),
    "generators of concatenated data": lambda: DataLoader(
        Subset(ConcatDataset([AugmentedData()]), DATA), 4, shuffle=True
    ),
    "set_epoch of wrapped data": lambda: DataLoader(Subset(EpochData(), DATA), 4, shuffle=True),
    "captured generator": with_captured_generator,
    "epoch counter of a stream": lambda: DataLoader(CountedStream(), 4),
    "shuffle buffer": lambda: DataLoader(BufferedStream(), 4),
    "epoch counter of a loader": CountingLoader,
    "loader that seeds its generator": lambda: SeedingLoader(DATA, 4, shuffle=True, generator=torch.Generator()),
    "progress bar": lambda: silent(shuffled()),
    "progress bar over counters": lambda: silent(Wrapper(loader(CountedOrder()))),
    "wrapper": lambda: Wrapper(shuffled()),
    "distributed sampler in a wrapper": lambda: Wrapper(loader(DistributedSampler(DATA, num_replicas=1, rank=0))),
    "dictionary of loaders": lambda: CombinedLoader({"a": shuffled(), "b": silent(loader(CountedOrder()))}),
    "tuple of loaders": lambda: CombinedLoader((shuffled(), DataLoader(AugmentedData(), 4, shuffle=True))),
    "stateful distributed sampler": lambda: loader(StatefulDistributedSampler(DATA, num_replicas=1, rank=0)),
    "stateful loader, numpy generator": lambda: stateful(sampler=NumpyOrder(np.random.default_rng(3))),
    "stateful loader, epoch counter": lambda: stateful(sampler=CountedOrder()),
    "stateful loader, drawn indices": lambda: stateful(sampler=TorchDraws()),
    "stateful loader, distributed": lambda: stateful(sampler=DistributedSampler(DATA, num_replicas=1, rank=0)),
    "stateful loader, generators of the data": lambda: stateful(AugmentedData(), shuffle=True),
    "stateful loader in a wrapper": lambda: Wrapper(stateful(shuffle=True)),
    "stateful loaders, combined": lambda: CombinedLoader({"a": stateful(shuffle=True), "b": stateful(shuffle=True)}),
    "nodes": lambda: nodes(prefetch=0),
    "nodes that prefetch": lambda: nodes(prefetch=3),
    "webdataset": lambda: pipeline(webdataset.shuffle(100, initial=10, rng=random.Random(3))),
    "webdataset, epoch counter": lambda: pipeline(webdataset.detshuffle(100, initial=10)),
    "accelerate": prepared,
    "accelerate, seedable sampler": lambda: prepared(use_seedable_sampler=True),
    "accelerate, stateful loader": lambda: prepared(use_stateful_dataloader=True),
}
WITH_WORKERS: dict[str, Callable[[], Any]] = {
    "epoch counter, workers": lambda: loader(CountedOrder(), num_workers=1),
    "generators of the data, workers": lambda: DataLoader(AugmentedData(), 4, shuffle=True, num_workers=1),
    "accelerate, stateful loader, workers": lambda: prepared(num_workers=1, use_stateful_dataloader=True),
    "stateful loader, numpy generator, workers": lambda: stateful(
        sampler=NumpyOrder(np.random.default_rng(3)), num_workers=1
    ),
}


@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_loader_with_other_workers_within_a_pass_is_refused(workers: int) -> None:
    registry = LoaderRegistry()
    list(itertools.islice(registry.register(stateful(num_workers=1)), 2))
    resumed = LoaderRegistry()
    resumed.load_state_dict(registry.state_dict(), rng.get_state())
    with pytest.raises(ValueError, match=rf"has num_workers={workers}, .* Resume with num_workers=1, or from"):
        resumed.register(stateful(num_workers=workers))


def test_stateful_loader_with_other_workers_between_passes_warns(caplog: pytest.LogCaptureFixture) -> None:
    registry = LoaderRegistry()
    assert len(list(registry.register(stateful(num_workers=1)))) == BATCHES
    resumed = LoaderRegistry()
    resumed.load_state_dict(registry.state_dict(), rng.get_state())
    assert len(list(resumed.register(stateful()))) == BATCHES
    assert "num_workers is 0 and was 1 at the snapshot. The order of the data may differ." in caplog.text


def test_generator_of_another_kind_warns(caplog: pytest.LogCaptureFixture) -> None:
    registry = LoaderRegistry()
    list(itertools.islice(registry.register(loader(NumpyOrder(np.random.default_rng(3)))), 2))
    resumed = LoaderRegistry()
    resumed.load_state_dict(registry.state_dict(), rng.get_state())
    next(iter(resumed.register(loader(NumpyOrder(np.random.RandomState(3))))))
    assert "the snapshot contains the state of sampler.generator" in caplog.text
    assert "which is of another kind" in caplog.text


def check_passes_differ(make: Callable[[], Any]) -> None:
    registry = LoaderRegistry()
    seen = [batch for batch, _ in train(registry.register(make()), 3 * BATCHES)]
    assert len({str(seen[first : first + BATCHES]) for first in range(0, 3 * BATCHES, BATCHES)}) == 3


@pytest.mark.parametrize("kind", LOADERS)
def test_order_from_objects_below_the_loader_is_restored_after_any_batch(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    seed_everything(1)
    check_passes_differ(LOADERS[kind])
    check_resume(LOADERS[kind], [1, 3, BATCHES, BATCHES + 2, 2 * BATCHES, 2 * BATCHES + 4])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_order_from_objects_below_the_loader_with_workers_is_restored(kind: str) -> None:
    check_resume(WITH_WORKERS[kind], [2, BATCHES, BATCHES + 1])
