"""Passes over a loader that are interrupted after some batches and resumed."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from pte_tracking._data.loader import ResumableLoader
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.plain_state import to_plain

BATCHES = 5  # per pass, with 4 samples each
Seen = list[tuple[Any, float]]


def train(loader: ResumableLoader[Any], batches: int) -> Iterator[tuple[Any, float]]:
    """Yield pairs of a batch and a random number that the training draws."""
    while True:
        for batch in loader:
            drawn = torch.rand(()).item() + random.random() + np.random.rand()
            yield _as_lists(batch), drawn
            batches -= 1
            if not batches:
                return


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def save_and_load(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(to_plain(state), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def check_resume(make: Callable[[], Iterable[Any]], stops: Iterable[int]) -> None:
    seed_everything(1)
    registry = LoaderRegistry()
    uninterrupted: Seen = []
    saved = {}
    for batch_and_draw in train(registry.register(make()), 3 * BATCHES):
        uninterrupted.append(batch_and_draw)
        saved[len(uninterrupted)] = save_and_load([registry.state_dict(), rng.get_state()])
    for stop in stops:
        seed_everything(99)
        registry = LoaderRegistry()
        registry.load_state_dict(*saved[stop])
        loader = registry.register(make())
        torch.rand(7), random.random(), np.random.rand()  # draws between the resume and the first iteration
        registry.begin()
        assert list(train(loader, 3 * BATCHES - stop)) == uninterrupted[stop:], f"after {stop} batches"


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


def _as_lists(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: _as_lists(part) for key, part in batch.items()}
    if isinstance(batch, list | tuple):
        return [_as_lists(part) for part in batch]
    return batch.tolist() if hasattr(batch, "tolist") else batch
