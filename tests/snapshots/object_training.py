"""Training of any model and optimizer, which is stopped and resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions


@dataclass
class Objects:
    """Objects of a training.

    Attributes:
        model: The model.
        optimizer: The optimizer, an object like one, or several by name; None if the manager does not receive any.
        update: Function of the manager and a batch that performs one update. Defaults to a backward pass and a step.
        state_objects: Other objects by name.
        extensions: Other extensions.
        compared: Other objects with a state to compare.
    """

    model: Any
    optimizer: Any
    update: Callable[[pte.ExtensionsManager, Tensor], object] | None = None
    state_objects: dict[str, Any] = field(default_factory=dict)
    extensions: list[Any] = field(default_factory=list)
    compared: list[Any] = field(default_factory=list)


class Lookup(nn.Module):
    """Model with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 3, sparse=True)

    def forward(self, batch: Tensor) -> Tensor:
        rows: Tensor = self.embedding(batch.abs().long() % 10)
        return rows


def make_net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))


def train(
    folder: Path, make: Callable[[], Objects], *, stop: int | None = None, resume: bool = False
) -> tuple[int, Any]:
    """Train for 12 iterations with a snapshot after 5 and 10. Return the first iteration and the final state."""
    torch.manual_seed(0)
    objects = make()
    manager = pte.ExtensionsManager(
        objects.model,
        3,
        [*objects.extensions, extensions.snapshot(trigger=(5, "iteration"))],
        optimizers={} if objects.optimizer is None else objects.optimizer,
        state_objects=objects.state_objects,
        out_dir=folder,
        sinks=[],
    )
    if resume:
        manager.resume()
    start = manager.iteration
    dtype = next((parameter.dtype for parameter in objects.model.parameters()), torch.float32)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(4, 6, generator=generator).to(dtype) for _ in range(4)]
    for batch in manager.batches(batches):
        with manager.run_iteration():
            (objects.update or update(objects))(manager, batch)
        if manager.iteration == stop:
            break
    manager.close()
    optimizers = objects.optimizer.values() if isinstance(objects.optimizer, dict) else [objects.optimizer]
    targets = [objects.model, *optimizers, *objects.state_objects.values(), *objects.compared]
    return start, freeze([target.state_dict() for target in targets if target is not None])


def update(objects: Objects) -> Callable[[pte.ExtensionsManager, Tensor], object]:
    def perform(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        def compute_loss() -> Tensor:
            with contextlib.suppress(AttributeError):
                objects.optimizer.zero_grad()
            loss: Tensor = (objects.model(batch).float() ** 2).mean()
            loss.backward()
            return loss

        if isinstance(objects.optimizer, torch.optim.LBFGS):
            objects.optimizer.step(compute_loss)
        else:
            compute_loss()
            objects.optimizer.step()

    return perform


def check_exact_resume(folder: Path, make: Callable[[], Objects], resumed: Callable[[], Objects] | None = None) -> None:
    """Check that a training that stops after 7 iterations and is resumed from 5 ends like one that does not stop.

    Args:
        folder: Directory of the runs.
        make: Makes the objects.
        resumed: Makes the objects of the resumed training. Defaults to ``make``.
    """
    _, whole = train(folder / "whole", make)
    train(folder / "run", make, stop=7)
    start, state = train(folder / "run", resumed or make, resume=True)
    assert start == 5
    assert state == whole


def freeze(value: Any) -> Any:
    """Return a state in which tensors are replaced by values that can be compared, with their types."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            value = value.to_dense()
        return (str(value.dtype), repr(value.tolist()))  # in which NaN equals NaN
    if isinstance(value, dict):
        return {key: freeze(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [freeze(item) for item in value]
    return value
