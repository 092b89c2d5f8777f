"""Scripts of the common kinds, as their users port them: what they do is what is recorded, also after a resume.

Each kind is trained without an interruption, and once more with an interruption and a resume. Rows, weights, and data
points in TensorBoard must be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator
from ignite.metrics import Average, Loss
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

Points = dict[str, list[int]]


class InterruptedScriptError(Exception):
    """Interruption of a script between two iterations."""


def make_loader(count: int = 20, batch_size: int = 4) -> DataLoader[tuple[Tensor, ...]]:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size, shuffle=True)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))


def interrupt_at(stop_at: int | None, iteration: int) -> None:
    if iteration == stop_at:
        raise InterruptedScriptError


def classify_with_validation_per_epoch(out_dir: Path, stop_at: int | None) -> pte.ExtensionsManager:
    """Train as in the ImageNet example: log every 3 iterations, validate each epoch of 5, step a scheduler."""
    model = make_model()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    validation = make_loader()

    def validate(x: Tensor, target: Tensor) -> None:
        pte.report({"val/loss": (F.mse_loss(model(x), target), len(x))})

    manager = pte.ExtensionsManager(
        model,
        4,
        [
            extensions.Evaluator(validation, model, eval_func=validate),
            extensions.LogReport(trigger=(3, "iteration")),
            extensions.snapshot(),
        ],
        optimizers=optimizer,
        out_dir=out_dir,
        sinks=["json", "tensorboard"],
        state_objects={"scheduler": scheduler},
    )
    manager.resume()
    loader = make_loader()
    for x, target in manager.batches(loader):
        with manager.run_iteration(step_optimizers=["main"]):
            loss = F.mse_loss(model(x), target)
            loss.backward()
            pte.report({"train/loss": loss})
        if manager.iteration % len(loader) == 0:
            scheduler.step()
        interrupt_at(stop_at, manager.iteration)
    return manager


def accumulate_gradients_by_iterations(out_dir: Path, stop_at: int | None) -> pte.ExtensionsManager:
    """Train as nanoGPT does: micro-batches, a computed learning rate, and no epochs; estimate the loss now and then."""
    model = make_model()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    manager = pte.ExtensionsManager(
        model,
        1,
        [extensions.LogReport(trigger=(4, "iteration")), extensions.snapshot(trigger=(5, "iteration"))],
        optimizers=optimizer,
        out_dir=out_dir,
        sinks=["json", "tensorboard"],
        stop_trigger=(18, "iteration"),
    )
    manager.resume()
    while not manager.stop_trigger:
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + manager.iteration)
        with manager.run_iteration():
            optimizer.zero_grad()
            for _ in range(3):
                x = torch.randn(4, 3)
                loss = F.mse_loss(model(x), x.sum(1, keepdim=True)) / 3
                loss.backward()
            optimizer.step()
            pte.report({"train/loss": 3 * loss, "lr": optimizer.param_groups[0]["lr"]})
        if manager.iteration % 6 == 0:
            with torch.no_grad():
                x = torch.randn(8, 3)
                manager.run.log_metrics({"val/loss": F.mse_loss(model(x), x.sum(1, keepdim=True))}, manager.iteration)
        interrupt_at(stop_at, manager.iteration)
    return manager


def train_adversarially(out_dir: Path, stop_at: int | None) -> pte.ExtensionsManager:
    """Train as in the DCGAN example: two models and two optimizers, and samples from fixed noise after each epoch."""
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(2, 3), nn.Linear(3, 1)
    optimizers = {
        "generator": optim.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.999)),
        "discriminator": optim.Adam(discriminator.parameters(), lr=0.01, betas=(0.5, 0.999)),
    }
    fixed_noise = torch.randn(4, 2)
    manager = pte.ExtensionsManager(
        {"generator": generator, "discriminator": discriminator},
        4,
        [extensions.LogReport(trigger=(2, "iteration")), extensions.snapshot()],
        optimizers=optimizers,
        out_dir=out_dir,
        sinks=["json", "tensorboard"],
    )
    manager.resume()
    loader = make_loader()
    for x, _ in manager.batches(loader):
        with manager.run_iteration():
            fake = generator(torch.randn(len(x), 2))
            optimizers["discriminator"].zero_grad()
            real_loss = F.binary_cross_entropy_with_logits(discriminator(x), torch.ones(len(x), 1))
            fake_loss = F.binary_cross_entropy_with_logits(discriminator(fake.detach()), torch.zeros(len(x), 1))
            (real_loss + fake_loss).backward()
            optimizers["discriminator"].step()
            optimizers["generator"].zero_grad()
            loss = F.binary_cross_entropy_with_logits(discriminator(fake), torch.ones(len(x), 1))
            loss.backward()
            optimizers["generator"].step()
            pte.report({"D(x)": discriminator(x).mean(), "loss/D": real_loss + fake_loss, "loss/G": loss})
        if manager.iteration % len(loader) == 0:
            with torch.no_grad():
                manager.run.log_image("samples", generator(fixed_noise).sigmoid()[None], manager.iteration)
        interrupt_at(stop_at, manager.iteration)
    return manager


def train_with_ignite(out_dir: Path, stop_at: int | None) -> pte.ExtensionsManager:
    """Train with Ignite: evaluate in a handler of EPOCH_COMPLETED, which also reads a metric of the trainer."""
    model = make_model()
    optimizer = optim.SGD(model.parameters(), lr=0.05)

    def update(engine: Engine, batch: tuple[Tensor, Tensor]) -> float:
        interrupt_at(stop_at, manager.iteration)
        model.train()
        x, target = batch
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(update)
    evaluator = create_supervised_evaluator(model, {"loss": Loss(F.mse_loss)})

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate(engine: Engine) -> None:
        evaluator.run(DataLoader(make_loader().dataset, 4))
        pte.report({"val/loss": evaluator.state.metrics["loss"]})

    @trainer.on(Events.ITERATION_COMPLETED)
    def report(engine: Engine) -> None:
        pte.report({"train/loss": engine.state.output})

    manager = pte.IgniteExtensionsManager(
        trainer,
        model,
        4,
        [extensions.LogReport(), extensions.snapshot()],
        optimizers=optimizer,
        out_dir=out_dir,
        sinks=["json", "tensorboard"],
    )
    Average().attach(trainer, "mean")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: pte.report({"mean": engine.state.metrics["mean"]}))
    manager.resume()
    trainer.run(make_loader(), max_epochs=4)
    return manager


def train_with_trainer(out_dir: Path, stop_at: int | None) -> pte.ExtensionsManager:
    """Train as a Chainer script does: updater, evaluator, and reports of the model."""
    model = make_model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def compute_loss(x: Tensor, target: Tensor) -> Tensor:
        interrupt_at(stop_at, trainer.manager.iteration)
        loss = F.mse_loss(model(x), target)
        pte.report({"loss": loss}, model)
        return loss

    optimizer.target = model  # type: ignore[attr-defined]
    updater = pte.updaters.StandardUpdater(make_loader(), optimizer, loss_func=compute_loss)
    trainer = pte.Trainer(updater, (4, "epoch"), out_dir, sinks=["json", "tensorboard"])

    def validate(x: Tensor, target: Tensor) -> None:
        pte.report({"loss": F.mse_loss(model(x), target)}, model)

    trainer.extend(extensions.Evaluator(make_loader(), model, eval_func=validate))
    trainer.extend(extensions.observe_lr())
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.snapshot(autoload=True))
    trainer.run()
    return trainer.manager


Script = Callable[[Path, "int | None"], pte.ExtensionsManager]

#: Scripts, the steps of the data points that each records, and an iteration after which it is interrupted.
SCRIPTS: dict[Script, tuple[Points, int]] = {
    classify_with_validation_per_epoch: (
        {"train/loss": [3, 6, 9, 12, 15, 18, 20], "val/loss": [5, 10, 15, 20]},
        13,
    ),
    accumulate_gradients_by_iterations: (
        {"train/loss": [4, 8, 12, 16, 18], "lr": [4, 8, 12, 16, 18], "val/loss": [6, 12, 18]},
        14,
    ),
    train_adversarially: ({key: list(range(2, 21, 2)) for key in ("D(x)", "loss/D", "loss/G")}, 13),
    train_with_ignite: ({key: [5, 10, 15, 20] for key in ("train/loss", "val/loss", "mean")}, 13),
    train_with_trainer: ({key: [5, 10, 15, 20] for key in ("main/loss", "validation/main/loss", "lr")}, 13),
}


def read_points(out_dir: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(out_dir), size_guidance={"scalars": 0}).Reload()
    tags = set(accumulator.Tags()["scalars"]) - {"epoch"}
    return {tag: [(point.step, point.value) for point in accumulator.Scalars(tag)] for tag in tags}


def read_json_rows(manager: pte.ExtensionsManager) -> list[tuple[int, dict[str, Any]]]:
    return [(row.step, row.values) for row in manager.run.rows()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_ported_script_records_each_value_at_its_step(tmp_path: Path, script: Script) -> None:
    script(tmp_path, None)
    expected, _ = SCRIPTS[script]
    assert {tag: [step for step, _ in points] for tag, points in read_points(tmp_path).items()} == expected


@pytest.mark.parametrize("script", SCRIPTS)
def test_ported_script_interrupted_and_resumed_equals_uninterrupted_one(tmp_path: Path, script: Script) -> None:
    uninterrupted = script(tmp_path / "uninterrupted", None)
    _, stop_at = SCRIPTS[script]
    with pytest.raises(InterruptedScriptError):
        script(tmp_path / "resumed", stop_at)
    resumed = script(tmp_path / "resumed", None)
    for name, model in uninterrupted.models.items():
        weights = resumed.models[name].state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert read_json_rows(resumed) == read_json_rows(uninterrupted)
    assert read_points(tmp_path / "resumed") == read_points(tmp_path / "uninterrupted")
