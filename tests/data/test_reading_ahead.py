"""Loaders that read batches ahead of the loop in a thread, or keep an iterator across passes."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._snapshots import rng
from tests.data.front_ends import FRONT_ENDS, train
from tests.data.passes import BATCHES
from tests.data.passes import train as iterate

SAMPLES, BATCH_SIZE = 4 * BATCHES, 4
_LIMIT = 10.0  # seconds


class ReadingAhead:
    """Loader whose thread reads a whole pass ahead, up to its last random number if ``may_finish`` is set."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.may_finish = threading.Event()

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Any]:
        batches: Queue[Any] = Queue()
        is_finished, is_left = threading.Event(), threading.Event()

        def read() -> None:
            iterator = iter(self.loader)
            for _ in range(BATCHES):
                batches.put(next(iterator))
            self.may_finish.wait(_LIMIT)
            batches.put(next(iterator, None))  # The sampler draws from its generator once more.
            is_finished.set()
            is_left.wait(_LIMIT)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            if self.may_finish.is_set():
                assert is_finished.wait(_LIMIT)
            while (batch := batches.get(timeout=_LIMIT)) is not None:
                yield batch
        finally:
            self.may_finish.set()
            is_left.set()
            thread.join()


def shuffled(seed: int | None = 1) -> DataLoader[Tensor]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(range(SAMPLES), BATCH_SIZE, shuffle=True, generator=generator)  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [2, BATCHES + 2])
def test_loader_that_reads_ahead_in_a_thread_resumes_exactly(stop: int) -> None:
    registry, loader = LoaderRegistry(), ReadingAhead(shuffled())
    loader.may_finish.set()
    batches = iterate(registry.register(loader), 3 * BATCHES)
    for _ in range(stop):
        next(batches)
    state = registry.state_dict(), rng.get_state()
    uninterrupted = [batch for batch, _ in batches]

    resumed, again = LoaderRegistry(), ReadingAhead(shuffled())
    resumed.load_state_dict(*state)
    rest = iterate(resumed.register(again), 3 * BATCHES - stop)
    first, _ = next(rest)  # The thread draws its last number after the states are restored.
    again.may_finish.set()
    assert [first, *(batch for batch, _ in rest)] == uninterrupted


class DrawingAhead:
    """Loader whose thread draws each batch from the global generator one iteration ahead."""

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Tensor]:
        requests, batches = Queue[bool](), Queue[Tensor]()

        def draw() -> None:
            while requests.get(timeout=_LIMIT):
                batches.put(torch.rand(BATCH_SIZE))

        thread = threading.Thread(target=draw)
        thread.start()
        requests.put(True)
        following = batches.get(timeout=_LIMIT)
        try:
            for _ in range(BATCHES):
                requests.put(True)
                batch, following = following, batches.get(timeout=_LIMIT)
                yield batch
        finally:
            requests.put(False)
            thread.join()


class EndlessOrder(Sampler[int]):
    """Sampler that continues one iterator in each pass."""

    def __init__(self) -> None:
        self.indices = self.draw()

    def draw(self) -> Iterator[int]:
        generator = random.Random(3)
        while True:
            yield generator.randrange(SAMPLES)

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        return (next(self.indices) for _ in range(SAMPLES))


class ShortPasses:
    """Loader whose passes are parts of the passes over another loader."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.batches = loader, None

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        for _ in range(3):
            batch = None if self.batches is None else next(self.batches, None)
            if batch is None:
                self.batches = iter(self.loader)
                batch = next(self.batches)
            yield batch


class WithoutPosition:
    """Loader with a state that does not contain its position."""

    def __init__(self) -> None:
        self.loader, self.order = shuffled(), [[1]]

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order = state["order"]


INEXACT: dict[str, tuple[Any, str]] = {
    "thread": (DrawingAhead, "random numbers that are drawn ahead of the training, as by a loader that prefetches"),
    "iterator of a sampler": (
        lambda: DataLoader(range(SAMPLES), BATCH_SIZE, sampler=EndlessOrder()),  # type: ignore[arg-type]
        "EndlessOrder.indices is an iterator, which continues from the pass before.",
    ),
    "iterator of a loader": (
        lambda: ShortPasses(shuffled()),
        "ShortPasses.batches is an iterator, which continues from the pass before.",
    ),
    "state without a position": (
        WithoutPosition,
        "load_state_dict() of WithoutPosition does not continue after the batch at which state_dict() was called.",
    ),
}


@pytest.mark.parametrize("kind", INEXACT)
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_resume_of_an_inexact_loader_names_the_cause(
    front_end: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_loader, cause = INEXACT[kind]
    stop = len(make_loader()) + 2
    train(FRONT_ENDS[front_end], tmp_path, make_loader, stop, trigger=(1, "iteration"))
    train(FRONT_ENDS[front_end], tmp_path, make_loader, trigger=(1, "iteration"), resume=True)
    messages = [record.message for record in caplog.records if "the data after the resume differ" in record.message]
    assert len(messages) == 1
    assert cause in messages[0]


def test_iterator_in_place_of_a_loader_is_refused_after_its_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="can be iterated repeatedly"):
        train(FRONT_ENDS["loop"], tmp_path, lambda: Sized(iter(shuffled())))


class Sized:
    """Iterator with a length."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Any]:
        return self.iterator


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_endless_generator_resumes_exactly(front_end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def endless() -> Iterator[Any]:
        loader = shuffled()
        while True:
            yield from loader

    def make_loader() -> Any:
        return Sized(endless())

    run = FRONT_ENDS[front_end]
    whole = train(run, tmp_path / "whole", make_loader)
    train(run, tmp_path / "run", make_loader, BATCHES + 3, trigger=(1, "iteration"))
    rest = train(run, tmp_path / "run", make_loader, trigger=(1, "iteration"), resume=True)
    assert rest == whole[BATCHES + 3 :]
    assert f"re-read the first {BATCHES + 3} batches of the pass" in caplog.text


@pytest.mark.parametrize("kind", ["loader", "random numbers"])
@pytest.mark.parametrize("stop", [1, BATCHES - 1, BATCHES, BATCHES + 3])
def test_batch_that_is_drawn_ahead_and_saved_as_state_object_resumes_exactly(
    kind: str, stop: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(folder: Path, stop: int | None = None) -> list[Any]:
        torch.manual_seed(0)
        ahead: dict[str, Tensor] = {}
        manager = pte.ExtensionsManager(
            {},
            max_iterations=2 * BATCHES,
            extensions=[extensions.snapshot(trigger=(1, "iteration"))],
            iters_per_epoch=BATCHES,
            out_dir=folder,
            sinks=[],
            state_objects={"ahead": ahead},
        )
        manager.resume()
        batches, seen = manager.batches(shuffled(seed=None)), []
        draw = partial(next, batches) if kind == "loader" else partial(torch.rand, BATCH_SIZE)
        if not ahead:
            ahead["batch"] = draw()
        with contextlib.suppress(KeyboardInterrupt):
            for step in manager.iterations():
                if step == stop:
                    raise KeyboardInterrupt
                batch, ahead["batch"] = ahead["batch"], draw()
                seen.append((batch.tolist(), float(torch.rand(()))))
        manager.close()
        return seen

    whole = run(tmp_path / "whole")
    assert run(tmp_path / "parts", stop) == whole[:stop]
    assert run(tmp_path / "parts") == whole[stop:]
    assert "the data after the resume differ" not in caplog.text
