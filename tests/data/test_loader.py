"""A training that is resumed after any batch receives the same data as an uninterrupted one."""

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader

from pte_tracking._data.loader import ResumableLoader
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._snapshots import rng
from tests.data.passes import BATCHES, check_resume, save_and_load, seed_everything, train


class Noisy(Dataset[tuple[int, float, float, float]]):
    """Samples of an index and a random number of every generator, as with random augmentation."""

    def __len__(self) -> int:
        return 4 * BATCHES

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, torch.rand(()).item(), random.random(), np.random.rand()


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 4 * BATCHES

    def __getitem__(self, index: int) -> int:
        return index


class Stream(IterableDataset[float]):
    """Stream of random samples, of which each worker yields a part."""

    def __iter__(self) -> Iterator[float]:
        worker = torch.utils.data.get_worker_info()
        share = 1 if worker is None else worker.num_workers
        return (random.random() for _ in range(4 * BATCHES // share))


class EpochSampler(torch.utils.data.Sampler[int]):
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 4 * BATCHES

    def __iter__(self) -> Iterator[int]:
        return iter(random.Random(self.epoch).sample(range(4 * BATCHES), 4 * BATCHES))


def stateful(**options: Any) -> Iterable[Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # raised by torchdata
        return StatefulDataLoader(Numbers(), batch_size=4, **options)


def make_generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LOADERS: dict[str, Callable[[], Iterable[Any]]] = {
    "list": lambda: [[i] for i in range(BATCHES)],
    "sequential": lambda: DataLoader(Noisy(), batch_size=4),
    "shuffled": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
    "incomplete": lambda: DataLoader(Noisy(), batch_size=3, shuffle=True),
    "own generator": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, generator=make_generator()),
    "sampler generator": lambda: DataLoader(
        Noisy(), batch_size=4, sampler=RandomSampler(Numbers(), generator=make_generator())
    ),
    "weighted sampler": lambda: DataLoader(
        Noisy(), batch_size=4, sampler=WeightedRandomSampler([1.0, 2.0] * 10, 20, generator=make_generator())
    ),
    "batch sampler": lambda: DataLoader(Noisy(), batch_sampler=BatchSampler(RandomSampler(Numbers()), 4, False)),
    "set_epoch": lambda: DataLoader(Noisy(), batch_size=4, sampler=EpochSampler()),
    "distributed": lambda: DataLoader(
        Noisy(), batch_size=2, sampler=DistributedSampler(Numbers(), num_replicas=2, rank=1)
    ),
    "iterable": lambda: DataLoader(Stream(), batch_size=4),
    "stateful": lambda: stateful(shuffle=True),
    "stateful, own generator": lambda: stateful(shuffle=True, generator=make_generator()),
    "workers": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2),
}
WITH_WORKERS: dict[str, Callable[[], Iterable[Any]]] = {
    "prefetch": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2, prefetch_factor=4),
    "workers, own generator": lambda: DataLoader(
        Noisy(), batch_size=4, shuffle=True, num_workers=1, generator=make_generator()
    ),
    "iterable, workers": lambda: DataLoader(Stream(), batch_size=2, num_workers=2),
    "stateful, workers": lambda: stateful(shuffle=True, num_workers=2),
    # Random numbers in persistent workers are a documented exception, so these loaders yield only indices.
    "persistent workers": lambda: DataLoader(
        Numbers(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "persistent, own generator": lambda: DataLoader(
        Numbers(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True, generator=make_generator()
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_resumable_loader_resumes_exactly_after_any_batch(kind: str) -> None:
    stops = [2, BATCHES, BATCHES + 1] if kind == "workers" else range(1, 3 * BATCHES)
    check_resume(LOADERS[kind], stops)


@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_resumable_loader_with_workers_resumes_exactly(kind: str) -> None:
    check_resume(WITH_WORKERS[kind], [1, BATCHES - 1, BATCHES, BATCHES + 2, 2 * BATCHES, 2 * BATCHES + 3])


def test_loader_registry_repeated_resumes_stay_exact() -> None:
    make = LOADERS["shuffled"]
    seed_everything(1)
    uninterrupted = list(train(ResumableLoader(make()), 3 * BATCHES))

    seed_everything(1)
    registry = LoaderRegistry()
    seen = list(train(registry.register(make()), 2))
    for more in (1, 2, 1, 7):
        state = save_and_load([registry.state_dict(), rng.get_state()])
        registry = LoaderRegistry()
        registry.load_state_dict(*state)
        assert registry.state_dict().keys() == {"main"}, "a position is kept until its loader is registered"
        seen += train(registry.register(make()), more)
    assert seen == uninterrupted[: len(seen)]


def test_resumable_loader_returns_loaded_state_until_next_batch() -> None:
    make = LOADERS["shuffled"]
    loader = ResumableLoader(make())
    list(train(loader, 3))
    state = loader.state_dict()
    restored = ResumableLoader(make())
    restored.load_state_dict(state)
    assert restored.state_dict() is state


def test_loader_registry_several_loaders_resume_together() -> None:
    def rounds(registry: LoaderRegistry, count: int) -> Iterator[Any]:
        first, second = (train(registry.register(LOADERS["shuffled"](), name), 99) for name in ("first", "second"))
        return ((next(first), next(second)) for _ in range(count))

    seed_everything(1)
    uninterrupted = list(rounds(LoaderRegistry(), 8))
    seed_everything(1)
    registry = LoaderRegistry()
    seen = list(rounds(registry, 3))
    state = save_and_load([registry.state_dict(), rng.get_state()])
    resumed = LoaderRegistry()
    resumed.load_state_dict(*state)
    assert seen + list(rounds(resumed, 5)) == uninterrupted


def test_resumable_loader_yields_batches_and_length_of_loader() -> None:
    assert [list(loader) for loader in [ResumableLoader([1, 2, 3])] * 2] == [[1, 2, 3], [1, 2, 3]]
    assert list(ResumableLoader([])) == []
    assert len(ResumableLoader([1, 2, 3])) == 3


def test_resumable_loader_wrong_length_yields_every_batch() -> None:
    class ShortList(list[int]):
        def __len__(self) -> int:
            return 2

    assert list(ResumableLoader(ShortList([1, 2, 3, 4]))) == [1, 2, 3, 4]


def test_resumable_loader_resumed_with_less_data_continues_with_next_pass(caplog: pytest.LogCaptureFixture) -> None:
    loader = ResumableLoader(list(range(5)))
    batch_iterator = iter(loader)
    for _ in range(3):
        next(batch_iterator)
    shorter = ResumableLoader([1, 2], "train")
    shorter.load_state_dict(loader.state_dict())
    assert list(shorter) == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "loader 'train': a pass now has 2 batches and had 5 at the snapshot, so the data or the batches differ. "
        "Training continues with the next pass, and the order of the data is not that of the interrupted training."
    ]


def test_resumable_loader_state_of_other_loader_warns_about_order(caplog: pytest.LogCaptureFixture) -> None:
    source = ResumableLoader(LOADERS["stateful"]())
    next(iter(source))
    ResumableLoader(LOADERS["shuffled"]()).load_state_dict(source.state_dict())
    assert "the snapshot contains the position of a loader with state_dict()" in caplog.text
    caplog.clear()
    source = ResumableLoader(LOADERS["own generator"]())
    next(iter(source))
    resumed = ResumableLoader(LOADERS["shuffled"]())
    resumed.load_state_dict(source.state_dict())
    next(iter(resumed))
    assert "the snapshot contains the state of generator, which this loader does not refer to" in caplog.text


def test_resumable_loader_resumed_persistent_workers_log_warning(caplog: pytest.LogCaptureFixture) -> None:
    make = WITH_WORKERS["persistent workers"]
    loader = ResumableLoader(make())
    list(train(loader, BATCHES + 1))
    resumed = ResumableLoader(make())
    resumed.load_state_dict(loader.state_dict())
    next(iter(resumed))
    assert "persistent_workers=False" in caplog.text
