"""Objects with a state below a loader."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from tests.data.passes import BATCHES

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


def loader(sampler: Any, **options: Any) -> DataLoader[int]:
    return DataLoader(DATA, batch_size=4, sampler=sampler, **options)


def shuffled(**options: Any) -> DataLoader[int]:
    return DataLoader(DATA, 4, shuffle=True, **options)
