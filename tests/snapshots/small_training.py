"""Training of a few milliseconds with every kind of state that a resume restores, for each front end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
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

#: Called in each iteration with its number, for example to kill the process.
Hook = Callable[[int], object]


class Augmented(Dataset[tuple[Tensor, int]]):
    """Samples with random noise of all generators."""

    def __init__(self) -> None:
        self._samples = torch.linspace(-1, 1, 32 * 4).reshape(32, 4)

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(4) * 0.1 + random.random() * 0.1 + float(np.random.rand()) * 0.1
        return self._samples[index] + noise, index % 3


class Parts:
    """Components of the training, equal in each instance."""

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
        kind: Any = StatefulDataLoader if stateful else DataLoader
        self.loader: Iterable[Any] = kind(Augmented(), batch_size=4, shuffle=True, num_workers=workers)
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
        named = {**self.model.state_dict(), **self.average.state_dict(prefix="average.")}
        return {name: value.double().flatten().tolist() for name, value in named.items()}


def default_extensions(**snapshot: Any) -> list[Any]:
    return [
        extensions.LogReport(trigger=(3, "iteration")),
        extensions.ExponentialShift("weight_decay", 0.99, init=0.01),
        extensions.observe_lr(),
        extensions.MinValue("train/loss", trigger=(4, "iteration")),
        extensions.snapshot(**{"trigger": (5, "iteration"), **snapshot}),
    ]


def plain_loop(out: Path, parts: Parts, extension_list: list[Any], hook: Hook, source: str | None) -> Checkpoint | None:
    manager = pte.ExtensionsManager(
        parts.model, EPOCHS, extension_list, optimizers=parts.optimizer, out_dir=out, state_objects=parts.state_objects
    )
    resumed = manager.resume(source) if source else None
    for batch in manager.batches(parts.loader):
        with manager.run_iteration():
            parts.update(batch)
            hook(manager.iteration + 1)
    return resumed


def trainer(out: Path, parts: Parts, extension_list: list[Any], hook: Hook, source: str | None) -> Checkpoint | None:
    parts.optimizer.target = parts.model  # type: ignore[attr-defined]

    class Updater(updaters.StandardUpdater):
        def update_core(self) -> None:
            super().update_core()
            parts.after_update()
            hook(training.manager.iteration + 1)

    updater = Updater(parts.loader, parts.optimizer, loss_func=parts.loss)
    training = pte.Trainer(updater, (EPOCHS, "epoch"), out, extension_list, state_objects=parts.state_objects)
    resumed = training.resume(source) if source else None
    training.run()
    return resumed


def ignite(out: Path, parts: Parts, extension_list: list[Any], hook: Hook, source: str | None) -> Checkpoint | None:
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
    resumed = manager.resume(source) if source else None
    engine.run(parts.loader, max_epochs=EPOCHS)
    return resumed


FRONT_ENDS = {"plain loop": plain_loop, "trainer": trainer, "ignite": ignite}


class Killed(BaseException):
    """Exception that stops a training. Unlike SIGKILL, it ends the run."""


def kill_at(iteration: int) -> Hook:
    """Return a hook that stops the training in an iteration."""

    def hook(current: int) -> None:
        if current == iteration:
            raise Killed

    return hook


def train(
    out: Path,
    *,
    front_end: str = "plain loop",
    hook: Hook = lambda iteration: None,
    source: str | None = "latest",
    extension_list: list[Any] | None = None,
    **parts: Any,
) -> tuple[dict[str, list[float]], Checkpoint | None]:
    """Train or resume. Return the weights and the checkpoint resumed from."""
    components = Parts(**parts)
    resumed = FRONT_ENDS[front_end](
        out, components, default_extensions() if extension_list is None else extension_list, hook, source
    )
    return components.weights(), resumed


def train_until(out: Path, iteration: int, **options: Any) -> None:
    """Train and stop in the middle of an iteration."""
    try:
        train(out, hook=kill_at(iteration), **options)
    except Killed:
        return
    raise AssertionError("The training was not stopped.")


def rows(out: Path) -> list[dict[str, Any]]:
    """Return the rows of the log without times."""
    log = json.loads((out / "log").read_text())
    return [{key: value for key, value in row.items() if key != "elapsed_time"} for row in log]


def steps(out: Path) -> Iterator[int]:
    """Return the steps of the snapshots in a run directory."""
    return iter(sorted(int(path.name.rpartition("_")[2]) for path in out.glob("snapshot_iter_*")))
