"""Short deterministic training with every kind of state that a resume must restore, in each front end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

import pte_tracking as pte
from pte_tracking import extensions, updaters
from pte_tracking._store.events import Checkpoint

ITERATIONS = 8  # per epoch
EPOCHS = 3

#: Receives the number of the current iteration, for example to kill the process in it.
Hook = Callable[[int], object]


class AugmentedDataset(Dataset[tuple[Tensor, int]]):
    """Dataset that adds noise from the generators of torch, random and NumPy."""

    def __init__(self) -> None:
        self._samples = torch.linspace(-1, 1, 32 * 4).reshape(32, 4)

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(4) * 0.1 + random.random() * 0.1 + float(np.random.rand()) * 0.1
        return self._samples[index] + noise, index % 3


class TrainingParts:
    """Model, optimizer, scheduler, averaged model and loader with fixed seeds."""

    def __init__(self, workers: int = 0, stateful: bool = False) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(1)
        random.seed(2)
        np.random.seed(3)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5, 0.8)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        loader_class: Any = StatefulDataLoader if stateful else DataLoader
        self.loader: Iterable[Any] = loader_class(AugmentedDataset(), batch_size=4, shuffle=True, num_workers=workers)
        self.state_objects = {"scheduler": self.scheduler, "average": self.average}

    def loss(self, samples: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(self.model(samples), labels)
        pte.report({"train/loss": loss, "train/luck": random.random()})
        return loss

    def update(self, batch: Any) -> None:
        self.optimizer.zero_grad()
        self.loss(*batch).backward()
        self.optimizer.step()
        self.after_update()

    def after_update(self) -> None:
        self.scheduler.step()
        self.average.update_parameters(self.model)

    def weights(self) -> dict[str, list[float]]:
        state = {**self.model.state_dict(), **self.average.state_dict(prefix="average.")}
        return {name: value.double().flatten().tolist() for name, value in state.items()}


def default_extensions(**snapshot: Any) -> list[Any]:
    return [
        extensions.LogReport(trigger=(3, "iteration")),
        extensions.ExponentialShift("weight_decay", 0.99, init=0.01),
        extensions.observe_lr(),
        extensions.MinValue("train/loss", trigger=(4, "iteration")),
        extensions.snapshot(**{"trigger": (5, "iteration"), **snapshot}),
    ]


def train_plain_loop(
    out: Path, parts: TrainingParts, extension_list: list[Any], hook: Hook, resume_from: str | None
) -> Checkpoint | None:
    manager = pte.ExtensionsManager(
        parts.model, EPOCHS, extension_list, optimizers=parts.optimizer, out_dir=out, state_objects=parts.state_objects
    )
    resumed = manager.resume(resume_from) if resume_from else None
    for batch in manager.batches(parts.loader):
        with manager.run_iteration():
            parts.update(batch)
            hook(manager.iteration + 1)
    return resumed


def train_iterations(
    out: Path, parts: TrainingParts, extension_list: list[Any], hook: Hook, resume_from: str | None
) -> Checkpoint | None:
    manager = pte.ExtensionsManager(
        parts.model, EPOCHS, extension_list, optimizers=parts.optimizer, out_dir=out, state_objects=parts.state_objects
    )
    resumed = manager.resume(resume_from) if resume_from else None
    for batch in manager.iterations(parts.loader):
        parts.update(batch)
        hook(manager.iteration + 1)
    return resumed


def train_with_trainer(
    out: Path, parts: TrainingParts, extension_list: list[Any], hook: Hook, resume_from: str | None
) -> Checkpoint | None:
    parts.optimizer.target = parts.model  # type: ignore[attr-defined]

    class Updater(updaters.StandardUpdater):
        def update_core(self) -> None:
            super().update_core()
            parts.after_update()
            hook(training.manager.iteration + 1)

    updater = Updater(parts.loader, parts.optimizer, loss_func=parts.loss)
    training = pte.Trainer(updater, (EPOCHS, "epoch"), out, extension_list, state_objects=parts.state_objects)
    resumed = training.resume(resume_from) if resume_from else None
    training.run()
    return resumed


def train_with_ignite(
    out: Path, parts: TrainingParts, extension_list: list[Any], hook: Hook, resume_from: str | None
) -> Checkpoint | None:
    from ignite.engine import Engine

    def step(engine: Engine, batch: Any) -> None:
        parts.update(batch)
        hook(manager.iteration + 1)

    engine = Engine(step)
    manager = pte.IgniteExtensionsManager(
        engine,
        parts.model,
        EPOCHS,
        extension_list,
        optimizers=parts.optimizer,
        out_dir=out,
        state_objects=parts.state_objects,
    )
    resumed = manager.resume(resume_from) if resume_from else None
    engine.run(parts.loader, max_epochs=EPOCHS)
    return resumed


FRONT_ENDS = {
    "plain loop": train_plain_loop,
    "iterations": train_iterations,
    "trainer": train_with_trainer,
    "ignite": train_with_ignite,
}


class Stopped(BaseException):
    """Interrupts a training in an iteration. Unlike with SIGKILL, the manager still ends the run."""


def stop_at(iteration: int) -> Hook:
    """Create a hook that interrupts the training in ``iteration``."""

    def hook(current: int) -> None:
        if current == iteration:
            raise Stopped

    return hook


def train(
    out: Path,
    *,
    front_end: str = "plain loop",
    hook: Hook = lambda iteration: None,
    resume_from: str | None = "latest",
    extension_list: list[Any] | None = None,
    **part_options: Any,
) -> tuple[dict[str, list[float]], Checkpoint | None]:
    """Train, or resume if there is a snapshot.

    Returns:
        Final weights, and the checkpoint from which the run resumed. None for a new run.
    """
    parts = TrainingParts(**part_options)
    resumed = FRONT_ENDS[front_end](
        out, parts, default_extensions() if extension_list is None else extension_list, hook, resume_from
    )
    return parts.weights(), resumed


def train_until(out: Path, iteration: int, **options: Any) -> None:
    """Train and interrupt the run in ``iteration``."""
    try:
        train(out, hook=stop_at(iteration), **options)
    except Stopped:
        return
    raise AssertionError(f"the training ended before iteration {iteration}")


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Read the rows of the JSON log without ``elapsed_time``."""
    log = json.loads((out / "log").read_text())
    return [{key: value for key, value in row.items() if key != "elapsed_time"} for row in log]
