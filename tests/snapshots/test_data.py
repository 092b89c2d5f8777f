"""A training that stops after any batch and goes on in a new process sees the data that it would have seen."""

import io
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

from pte_tracking._data.loader import Feed, Feeds
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.plain_state import plain

BATCHES = 5  # in a pass, of 4 samples
Seen = list[tuple[Any, float]]


class Noisy(Dataset[tuple[int, float, float, float]]):
    """A sample is its number, and what every generator draws for it: random augmentation."""

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
    """Draws its samples while it goes; each worker gives a part."""

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
        warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # its own use of torch
        return StatefulDataLoader(Numbers(), batch_size=4, **options)


def own_generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LOADERS: dict[str, Callable[[], Iterable[Any]]] = {
    "list": lambda: [[i] for i in range(BATCHES)],
    "in order": lambda: DataLoader(Noisy(), batch_size=4),
    "shuffled": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
    "incomplete": lambda: DataLoader(Noisy(), batch_size=3, shuffle=True),
    "own generator": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, generator=own_generator()),
    "sampler with its generator": lambda: DataLoader(
        Noisy(), batch_size=4, sampler=RandomSampler(Numbers(), generator=own_generator())
    ),
    "with replacement": lambda: DataLoader(
        Noisy(), batch_size=4, sampler=WeightedRandomSampler([1.0, 2.0] * 10, 20, generator=own_generator())
    ),
    "batch sampler": lambda: DataLoader(Noisy(), batch_sampler=BatchSampler(RandomSampler(Numbers()), 4, False)),
    "set_epoch": lambda: DataLoader(Noisy(), batch_size=4, sampler=EpochSampler()),
    "distributed": lambda: DataLoader(
        Noisy(), batch_size=2, sampler=DistributedSampler(Numbers(), num_replicas=2, rank=1)
    ),
    "iterable": lambda: DataLoader(Stream(), batch_size=4),
    "stateful": lambda: stateful(shuffle=True),
    "stateful, own generator": lambda: stateful(shuffle=True, generator=own_generator()),
    "workers": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2),
}
WITH_WORKERS: dict[str, Callable[[], Iterable[Any]]] = {
    "prefetch": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2, prefetch_factor=4),
    "workers, own generator": lambda: DataLoader(
        Noisy(), batch_size=4, shuffle=True, num_workers=1, generator=own_generator()
    ),
    "iterable with workers": lambda: DataLoader(Stream(), batch_size=2, num_workers=2),
    "stateful with workers": lambda: stateful(shuffle=True, num_workers=2),
    # Random numbers inside of persistent workers are the documented exception, so these give the order only.
    "persistent workers": lambda: DataLoader(
        Numbers(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "persistent, own generator": lambda: DataLoader(
        Numbers(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True, generator=own_generator()
    ),
}


def train(feed: Feed[Any], batches: int) -> Iterator[tuple[Any, float]]:
    """A training that draws random numbers of its own: pairs of a batch and such a number."""
    while True:
        for batch in feed:
            drawn = torch.rand(()).item() + random.random() + np.random.rand()
            yield [part.tolist() if isinstance(part, torch.Tensor) else part for part in batch], drawn
            batches -= 1
            if not batches:
                return


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(plain(state), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def check(make: Callable[[], Iterable[Any]], stops: Iterable[int]) -> None:
    seed_everything(1)
    feeds = Feeds()
    whole: Seen = []
    saved = {}
    for seen in train(feeds.feed(make()), 3 * BATCHES):
        whole.append(seen)
        saved[len(whole)] = through_a_file([feeds.state_dict(), rng.get_state()])
    for stop in stops:
        seed_everything(99)
        feeds = Feeds()
        feeds.load_state_dict(*saved[stop])
        feed = feeds.feed(make())
        torch.rand(7), random.random(), np.random.rand()  # whoever draws before the training begins
        feeds.begin()
        assert list(train(feed, 3 * BATCHES - stop)) == whole[stop:], f"after {stop} batches"


@pytest.mark.parametrize("kind", LOADERS)
def test_it_goes_on_exactly_after_any_batch(kind: str) -> None:
    stops = [2, BATCHES, BATCHES + 1] if kind == "workers" else range(1, 3 * BATCHES)
    check(LOADERS[kind], stops)


@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_it_goes_on_exactly_with_workers(kind: str) -> None:
    check(WITH_WORKERS[kind], [1, BATCHES - 1, BATCHES, BATCHES + 2, 2 * BATCHES, 2 * BATCHES + 3])


def test_a_second_resume_is_as_exact_as_the_first() -> None:
    make = LOADERS["shuffled"]
    seed_everything(1)
    whole = list(train(Feed(make()), 3 * BATCHES))

    seed_everything(1)
    feeds = Feeds()
    seen = list(train(feeds.feed(make()), 2))
    for more in (1, 2, 1, 7):
        state = through_a_file([feeds.state_dict(), rng.get_state()])
        feeds = Feeds()
        feeds.load_state_dict(*state)
        assert feeds.state_dict().keys() == {"main"}, "a place is kept until its loader comes"
        seen += train(feeds.feed(make()), more)
    assert seen == whole[: len(seen)]


def test_a_state_taken_before_the_next_batch_is_the_one_restored() -> None:
    make = LOADERS["shuffled"]
    feed = Feed(make())
    list(train(feed, 3))
    state = feed.state_dict()
    again = Feed(make())
    again.load_state_dict(state)
    assert again.state_dict() is state


def test_several_loaders_go_on_together() -> None:
    def rounds(feeds: Feeds, count: int) -> Iterator[Any]:
        first, second = (train(feeds.feed(LOADERS["shuffled"](), name), 99) for name in ("first", "second"))
        return ((next(first), next(second)) for _ in range(count))

    seed_everything(1)
    whole = list(rounds(Feeds(), 8))
    seed_everything(1)
    feeds = Feeds()
    seen = list(rounds(feeds, 3))
    state = through_a_file([feeds.state_dict(), rng.get_state()])
    resumed = Feeds()
    resumed.load_state_dict(*state)
    assert seen + list(rounds(resumed, 5)) == whole


def test_passes_are_what_the_loader_gives() -> None:
    assert [list(feed) for feed in [Feed([1, 2, 3])] * 2] == [[1, 2, 3], [1, 2, 3]]
    assert list(Feed([])) == []
    assert len(Feed([1, 2, 3])) == 3


def test_a_wrong_length_loses_no_batch() -> None:
    class Modest(list[int]):
        def __len__(self) -> int:
            return 2

    assert list(Feed(Modest([1, 2, 3, 4]))) == [1, 2, 3, 4]


def test_less_data_than_before_is_an_error() -> None:
    feed = Feed(list(range(5)))
    passing = iter(feed)
    for _ in range(3):
        next(passing)
    shorter = Feed([1, 2])
    shorter.load_state_dict(feed.state_dict())
    with pytest.raises(ValueError, match="after 3 batches of a pass, but this pass ended after 2"):
        next(iter(shorter))


def test_another_kind_of_loader_is_an_error() -> None:
    known = Feed(LOADERS["stateful"]())
    next(iter(known))
    with pytest.raises(ValueError, match="DataLoader has not"):
        Feed(LOADERS["shuffled"]()).load_state_dict(known.state_dict())
    with pytest.raises(ValueError, match="1 random generators of its own, this DataLoader has 0"):
        Feed(LOADERS["shuffled"]()).load_state_dict(Feed(LOADERS["own generator"]()).state_dict())


def test_new_persistent_workers_are_said(caplog: pytest.LogCaptureFixture) -> None:
    make = WITH_WORKERS["persistent workers"]
    feed = Feed(make())
    list(train(feed, BATCHES + 1))
    resumed = Feed(make())
    resumed.load_state_dict(feed.state_dict())
    next(iter(resumed))
    assert "persistent_workers=False" in caplog.text
