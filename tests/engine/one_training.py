"""The same small training over a loader in each front end, which can be stopped and resumed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, updaters


class StoppedError(BaseException):
    """Ends a training in the middle of an iteration."""


class Training:
    """Training that records its batches and stops within an iteration.

    Args:
        loader: The loader.
        out_dir: Run directory.
        stop: Number of completed iterations after which it is stopped; None to train to the end.
        resume: Whether to resume.
        options: Arguments of the manager.
    """

    def __init__(
        self, loader: Iterable[Any], out_dir: Path, stop: int | None = None, *, resume: bool = False, **options: Any
    ) -> None:
        self.loader, self.out_dir, self.stop, self.resume = loader, out_dir, stop, resume
        self.epochs = options.pop("epochs", 3)
        self.snapshot = extensions.snapshot(trigger=options.pop("every", (1, "iteration")))
        self.options = {"sinks": [], **options}
        self.start = 0
        self.seen: list[Any] = []
        self.manager: Any = None

    def begin(self, manager: Any) -> None:
        self.manager = getattr(manager, "manager", manager)
        if self.resume:
            manager.resume()
        self.start = self.manager.iteration

    def record(self, batch: Any) -> None:
        if self.manager.iteration == self.stop:
            raise StoppedError
        self.seen.append(as_lists(batch))


def as_lists(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: as_lists(part) for key, part in batch.items()}
    if isinstance(batch, list | tuple):
        return [as_lists(part) for part in batch]
    return batch.tolist() if hasattr(batch, "tolist") else batch


def run_loop(training: Training) -> None:
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), training.epochs, [training.snapshot], out_dir=training.out_dir, **training.options
    )
    training.begin(manager)
    for batch in manager.batches(training.loader):
        with manager.run_iteration():
            training.record(batch)


def run_iterations(training: Training) -> None:
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), training.epochs, [training.snapshot], out_dir=training.out_dir, **training.options
    )
    training.begin(manager)
    for batch in manager.iterations(training.loader):
        training.record(batch)


def run_trainer(training: Training) -> None:
    model = nn.Linear(1, 1)
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.target = model

    class RecordingUpdater(updaters.StandardUpdater):
        def update_core(self) -> None:
            training.record(self.next_batch())

    updater = RecordingUpdater(training.loader, optimizer)
    stop = (training.epochs, "epoch")
    options = {name: value for name, value in training.options.items() if name != "iters_per_epoch"}
    trainer = pte.Trainer(updater, stop, training.out_dir, [training.snapshot], **options)
    if length := training.options.get("iters_per_epoch"):
        trainer.manager.updater.set_iters_per_epoch("iters_per_epoch", length)
    training.begin(trainer)
    trainer.run()


def run_ignite(training: Training) -> None:
    engine = Engine(lambda engine, batch: training.record(batch))
    engine.logger.disabled = True
    training.begin(
        pte.IgniteExtensionsManager(
            engine, nn.Linear(1, 1), training.epochs, [training.snapshot], out_dir=training.out_dir, **training.options
        )
    )
    engine.run(training.loader, max_epochs=training.epochs, epoch_length=training.options.get("iters_per_epoch"))


FRONT_ENDS: dict[str, Callable[[Training], None]] = {
    "loop": run_loop,
    "iterations": run_iterations,
    "trainer": run_trainer,
    "ignite": run_ignite,
}


def train(front_end: str, loader: Iterable[Any], out_dir: Path, stop: int | None = None, **options: Any) -> Training:
    """Run a training in a front end, with the same random state at its start."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    training = Training(loader, out_dir, stop, **options)
    with contextlib.suppress(StoppedError):
        FRONT_ENDS[front_end](training)
    return training


def check_resume(front_end: str, make: Callable[[], Iterable[Any]], out_dir: Path, stop: int, **options: Any) -> None:
    """Check that a stopped and resumed training receives the batches of one that is not stopped."""
    whole = train(front_end, make(), out_dir / "whole", **options).seen
    train(front_end, make(), out_dir / "run", stop, **options)
    resumed = train(front_end, make(), out_dir / "run", resume=True, **options)
    assert 0 < resumed.start <= stop
    assert resumed.seen == whole[resumed.start :]
