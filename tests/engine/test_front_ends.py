"""Equal logs and weights in every front end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions, triggers
from pte_tracking.updaters import StandardUpdater

EPOCHS = 3


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.predictor = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        output = self.predictor(x)
        loss = F.cross_entropy(output, y)
        pte.report({"train/loss": loss, "train/accuracy": (output.argmax(1) == y).float().mean()})
        return loss


def make_loader(shuffle: bool) -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.argmax(1) % 3), batch_size=8, shuffle=shuffle, generator=generator)


def build_extensions(model: Classifier, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Return extensions with all kinds of triggers, which report, change the training, and read the models."""

    def evaluate(x: Tensor, y: Tensor) -> None:
        pte.report({"val/loss": F.cross_entropy(model.predictor(x), y)})

    @pte.make_extension(trigger=triggers.MinValueTrigger("val/loss"), priority=pte.PRIORITY_READER + 1)
    def mark_best(manager: Any) -> None:
        pte.report({"best": manager.epoch})

    @pte.make_extension(trigger=(0.4, "epoch"), priority=pte.PRIORITY_EDITOR)
    def decay(manager: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 0.9

    return [
        extensions.LogReport(trigger=(0.5, "epoch")),
        extensions.Evaluator(make_loader(shuffle=False), model, eval_func=evaluate),
        extensions.observe_lr(optimizer),
        extensions.ParameterStatistics(model, statistics={"mean": torch.mean}, trigger=(1, "iteration")),
        mark_best,
        decay,
    ]


def run_trainer(model: Classifier, optimizer: Any, stop: Any, out: Path) -> pte.ExtensionsManager:
    optimizer.target = model
    trainer = pte.Trainer(
        StandardUpdater(make_loader(shuffle=True), optimizer), stop, out, build_extensions(model, optimizer)
    )
    trainer.run()
    return trainer.manager


def run_batches_loop(model: Classifier, optimizer: Any, stop: Any, out: Path) -> pte.ExtensionsManager:
    manager = pte.ExtensionsManager(
        model, EPOCHS, build_extensions(model, optimizer), optimizers=optimizer, out_dir=out, stop_trigger=stop
    )
    for x, y in manager.batches(make_loader(shuffle=True)):
        with manager.run_iteration():
            optimizer.zero_grad()
            model(x, y).backward()
            optimizer.step()
    return manager


def run_explicit_loop(model: Classifier, optimizer: Any, stop: Any, out: Path) -> pte.ExtensionsManager:
    data = make_loader(shuffle=True)
    manager = pte.ExtensionsManager(
        model, EPOCHS, build_extensions(model, optimizer), optimizers=optimizer, out_dir=out, stop_trigger=stop
    )
    for epoch in range(EPOCHS):
        for i, (x, y) in enumerate(data):
            with manager.run_iteration(epoch=epoch, iteration=epoch * len(data) + i, epoch_size=len(data)):
                optimizer.zero_grad()
                model(x, y).backward()
                optimizer.step()
            if manager.stop_trigger:
                return manager
    return manager


def run_ignite(model: Classifier, optimizer: Any, stop: Any, out: Path) -> pte.ExtensionsManager:
    def step(engine: Engine, batch: Any) -> float:
        optimizer.zero_grad()
        loss = model(*batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    engine = Engine(step)
    manager = pte.IgniteExtensionsManager(
        engine, model, EPOCHS, build_extensions(model, optimizer), optimizers=optimizer, out_dir=out, stop_trigger=stop
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: pte.report({"engine/output": engine.state.output}))
    engine.run(make_loader(shuffle=True), max_epochs=EPOCHS)
    return manager


FrontEnd = Callable[[Classifier, Any, Any, Path], pte.ExtensionsManager]


def train(front_end: FrontEnd, stop: Any, out: Path) -> tuple[list[dict[str, float]], list[Tensor], int]:
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    torch.manual_seed(11)
    manager = front_end(model, optimizer, stop(), out)
    assert manager.is_ended
    rows = json.loads((out / "log").read_text())
    for row in rows:
        del row["elapsed_time"]
        row.pop("engine/output", None)
    return rows, list(model.state_dict().values()), manager.iteration


STOPS: dict[str, Callable[[], Any]] = {
    "epochs": lambda: (EPOCHS, "epoch"),
    "fraction": lambda: (2.5, "epoch"),
    "early stopping": lambda: triggers.EarlyStoppingTrigger(
        (1, "epoch"), "val/loss", patience=1, max_trigger=(EPOCHS, "epoch")
    ),
    "function": lambda: lambda manager: manager.iteration == 5,
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("front_end", [run_trainer, run_explicit_loop, run_ignite])
def test_front_ends_produce_identical_logs_and_weights(front_end: FrontEnd, stop: str, tmp_path: Path) -> None:
    expected_rows, expected_weights, expected_iterations = train(run_batches_loop, STOPS[stop], tmp_path / "batches")
    rows, weights, iterations = train(front_end, STOPS[stop], tmp_path / "other")
    assert len(expected_rows) >= 1
    assert "val/loss" in expected_rows[-1] or stop in ("fraction", "function")
    assert rows == expected_rows
    assert iterations == expected_iterations
    assert all(weight.equal(other) for weight, other in zip(weights, expected_weights, strict=True))
