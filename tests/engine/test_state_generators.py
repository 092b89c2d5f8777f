"""State objects that are random generators, or that a loader refers to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Sampler
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import pte_tracking as pte
from pte_tracking import extensions

DATA: Any = list(range(12))
GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "torch": (
        lambda: torch.Generator().manual_seed(5),
        lambda generator: float(torch.rand((), generator=generator)),
    ),
    "numpy": (lambda: np.random.default_rng(5), lambda generator: float(generator.random())),
    "mersenne twister": (
        lambda: np.random.Generator(np.random.MT19937(5)),
        lambda generator: float(generator.random()),
    ),
    "random state": (lambda: np.random.RandomState(5), lambda generator: float(generator.normal())),
    "python": (lambda: random.Random(5), lambda generator: float(generator.gauss())),
}
Made = tuple[Any, dict[str, Any]]


def train(make: Callable[[], Made], draw: Callable[[Any], float], out_dir: Path, stop: int | None = None) -> list[Any]:
    torch.manual_seed(0)
    loader, objects = make()
    seen: list[Any] = []
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1),
        3,
        [extensions.snapshot(trigger=(1, "iteration"))],
        out_dir=out_dir,
        sinks=[],
        state_objects=objects,
    )
    manager.resume()
    for batch in manager.batches(loader):
        with manager.run_iteration():
            seen.append((batch.tolist(), [draw(item) for item in objects.values()]))
        if manager.iteration == stop:
            break
    manager.close()
    return seen


def check(make: Callable[[], Made], draw: Callable[[Any], float], out_dir: Path) -> None:
    whole = train(make, draw, out_dir / "whole")
    for stop in (2, 4, 7):
        train(make, draw, out_dir / str(stop), stop)
        assert train(make, draw, out_dir / str(stop)) == whole[stop:]


@pytest.mark.parametrize("kind", GENERATORS)
def test_generator_as_state_object_continues_exactly(tmp_path: Path, kind: str) -> None:
    make, draw = GENERATORS[kind]
    check(lambda: (DataLoader(DATA, 3, shuffle=True), {"noise": make()}), draw, tmp_path)


def test_generator_of_the_loader_as_state_object_continues_exactly(tmp_path: Path) -> None:
    def make() -> Made:
        generator = torch.Generator().manual_seed(1)
        return DataLoader(DATA, 3, shuffle=True, generator=generator), {"generator": generator}

    check(make, GENERATORS["torch"][1], tmp_path)


class ResumableSampler(Sampler[int]):
    """Sampler that continues where its state says."""

    def __init__(self) -> None:
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        order = random.Random(self.epoch).sample(DATA, 12)
        while self.position < 12:
            self.position += 1
            yield order[self.position - 1]
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


@pytest.mark.parametrize(
    "make_sampler",
    [ResumableSampler, lambda: StatefulDistributedSampler(DATA, num_replicas=1, rank=0)],
    ids=["resumable", "torchdata"],
)
@pytest.mark.parametrize("is_batched", [False, True], ids=["sampler", "in batch sampler"])
def test_sampler_as_state_object_is_not_advanced_twice(
    tmp_path: Path, make_sampler: Callable[[], Any], is_batched: bool
) -> None:
    def make() -> Made:
        sampler = make_sampler()
        options = {"batch_sampler": BatchSampler(sampler, 3, False)} if is_batched else {"sampler": sampler}
        return DataLoader(DATA, **({} if is_batched else {"batch_size": 3}), **options), {"sampler": sampler}

    check(make, lambda item: 0.0, tmp_path)


def test_generator_as_state_object_of_another_library_is_refused(tmp_path: Path) -> None:
    make = GENERATORS["torch"][0]
    train(lambda: (DataLoader(DATA, 3), {"noise": make()}), GENERATORS["torch"][1], tmp_path, 2)
    with pytest.raises(ValueError, match=r"another random generator than this Generator \(library: torch\)"):
        train(lambda: (DataLoader(DATA, 3), {"noise": np.random.default_rng(1)}), GENERATORS["numpy"][1], tmp_path)


def test_load_restores_a_generator(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    draw = GENERATORS["torch"][1]
    train(lambda: (DataLoader(DATA, 3), {"noise": generator}), draw, tmp_path, 2)
    restored = torch.Generator()
    pte.load(tmp_path, state_objects={"noise": restored})
    assert draw(restored) == draw(generator)
