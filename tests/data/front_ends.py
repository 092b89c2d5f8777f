"""A short training in each front end, which returns the batches that it received."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.updaters import StandardUpdater

MakeLoader = Callable[[], Iterable[Any]]
#: Whether to resume, or the snapshot to resume from.
Resume = bool | Path


class Stop(BaseException):
    """Ends the training within an iteration, as a crash does."""


def _source(resume: Resume) -> str | Path:
    return "latest" if resume is True else Path(resume)  # type: ignore[arg-type]


def plain_loop(make_loader: MakeLoader, manager_options: Any, step: Callable[[Any, Any], None], resume: Resume) -> None:
    manager = pte.ExtensionsManager(**manager_options)
    if resume:
        manager.resume(_source(resume))
    with manager:
        for batch in manager.batches(make_loader()):
            with manager.run_iteration():
                step(manager, batch)


def trainer_loop(make_loader: MakeLoader, options: Any, step: Callable[[Any, Any], None], resume: Resume) -> None:
    class Updater(StandardUpdater):
        def update_core(self) -> None:
            step(self, self.next_batch())

    optimizer: Any = torch.optim.SGD(options["models"].parameters(), lr=0.1)
    optimizer.target = options["models"]
    updater = Updater(make_loader(), optimizer, loss_func=lambda: None)
    trainer = pte.Trainer(updater, (options["max_epochs"], "epoch"), options["out_dir"], options["extensions"])
    if resume:
        trainer.resume(_source(resume))
    trainer.run()


def ignite_loop(make_loader: MakeLoader, options: Any, step: Callable[[Any, Any], None], resume: Resume) -> None:
    engine = Engine(lambda engine, batch: step(manager, batch))
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: (_ for _ in ()).throw(error))
    manager = pte.IgniteExtensionsManager(engine, **options)
    if resume:
        manager.resume(_source(resume))
    engine.run(make_loader(), max_epochs=options["max_epochs"])


FRONT_ENDS = {"loop": plain_loop, "trainer": trainer_loop, "ignite": ignite_loop}


def train(
    front_end: Callable[..., None],
    folder: Path,
    make_loader: MakeLoader,
    stop: int | None = None,
    *,
    trigger: tuple[int, str] = (1, "epoch"),
    resume: Resume = False,
    modify: Callable[[Any], object] = lambda batch: None,
    seen: list[Any] | None = None,
) -> list[Any]:
    """Train three epochs, or until an iteration, and return the batches, also in ``seen``."""
    torch.manual_seed(0)
    seen = [] if seen is None else seen

    def step(counter: Any, batch: Any) -> None:
        if len(seen) == stop:
            raise Stop
        seen.append(torch.as_tensor(batch).tolist())
        torch.rand(())  # as dropout
        modify(batch)

    options = {
        "models": nn.Linear(1, 1),
        "max_epochs": 3,
        "extensions": [extensions.snapshot(trigger=trigger, snapshot_on_error=True)],
        "out_dir": folder,
    }
    with contextlib.suppress(Stop):
        front_end(make_loader, options, step, resume)
    return seen
