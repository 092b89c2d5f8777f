"""Usage patterns of the original examples: explicit loop, Trainer, Ignite, evaluation and snapshots."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import ExtensionsManager, extensions, reporter


class LogSoftmaxNet(nn.Module):
    """Model whose forward() returns log probabilities."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.layer(x), dim=1)


class LossClassifier(nn.Module):
    """Model that computes and reports its loss, for use as optimizer target."""

    def __init__(self) -> None:
        super().__init__()
        self.predictor = LogSoftmaxNet()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = F.nll_loss(self.predictor(x), y)
        pte.report({"train/loss": loss})
        return loss


def make_loader(examples: int = 12) -> DataLoader[tuple[Tensor, ...]]:
    x = torch.randn(examples, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.argmax(1) % 3), batch_size=4)


def test(args: argparse.Namespace, model: nn.Module, device: torch.device, data: Tensor, target: Tensor) -> None:
    model.eval()
    test_loss = 0.0
    correct = 0.0
    data, target = data.to(device), target.to(device)
    output = model(data)
    test_loss += F.nll_loss(output, target, reduction="mean").item()
    pte.reporter.report({"val/loss": test_loss})
    prediction = output.argmax(dim=1, keepdim=True)
    correct += prediction.eq(target.view_as(prediction)).sum().item()
    pte.reporter.report({"val/acc": correct / len(data)})


test.__test__ = False  # type: ignore[attr-defined]  # The name is that of the original example.


def read_rows(directory: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((directory / "log").read_text())
    return loaded


def test_manager_explicit_loop_logs_and_prints_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    max_epoch = 3
    epoch_size = 4
    printed = io.StringIO()
    my_extensions = [
        extensions.LogReport(),
        extensions.ProgressBar(out=io.StringIO()),
        extensions.PrintReport(["epoch", "iteration", "loss"], out=printed),
    ]
    models: dict[str, nn.Module] = {}
    manager = ExtensionsManager(models, max_epoch, my_extensions)
    for epoch in range(max_epoch):
        for i in range(epoch_size):
            current_it = epoch * epoch_size + i
            with manager.run_iteration(epoch=epoch, iteration=current_it, epoch_size=epoch_size):
                reporter.report({"loss": i / 100 + epoch})
    assert [(row["epoch"], row["iteration"]) for row in read_rows(tmp_path / "result")] == [(1, 4), (2, 8), (3, 12)]
    assert [row["loss"] for row in read_rows(tmp_path / "result")] == pytest.approx([0.015, 1.015, 2.015])
    header, *lines = printed.getvalue().splitlines()
    assert header.split() == ["epoch", "iteration", "loss"]
    assert [line.split() for line in lines] == [["1", "4", "0.015"], ["2", "8", "1.015"], ["3", "12", "2.015"]]


def test_manager_extend_registers_extension(tmp_path: Path) -> None:
    manager = ExtensionsManager({}, 1, out_dir=tmp_path, iters_per_epoch=2)
    manager.extend(extensions.LogReport())
    while not manager.stop_trigger:
        with manager.run_iteration():
            reporter.report({"loss": 1.0})
    assert len(read_rows(tmp_path)) == 1


def test_trainer_run_logs_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = SimpleNamespace(lr=0.1, momentum=0.5, epochs=2)
    device = "cpu"
    train_loader = make_loader()
    my_extensions = [extensions.LogReport()]

    model = LossClassifier().to(device)
    optimizer: Any = optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)
    optimizer.target = model
    updater = pte.updaters.StandardUpdater(train_loader, optimizer, device=device)
    trainer = pte.Trainer(updater, (args.epochs, "epoch"), extensions=my_extensions)
    trainer.run()

    first, second = read_rows(tmp_path / "result")
    assert (first["iteration"], second["iteration"]) == (3, 6)
    assert second["train/loss"] < first["train/loss"]


def test_default_converter_moves_only_tensors() -> None:
    optimizer: Any = optim.SGD([torch.zeros(1, requires_grad=True)])
    optimizer.target = nn.Identity()
    batch = {"x": torch.ones(2), "names": ["a", "b"]}
    seen: dict[str, Any] = {}

    def loss(**parts: Any) -> Tensor:
        seen.update(parts)
        return torch.zeros((), requires_grad=True)

    pte.updaters.StandardUpdater([batch], optimizer, device="meta", loss_func=loss).update()
    assert seen["x"].device.type == "meta"
    assert seen["names"] == ["a", "b"]


def test_evaluator_eval_func_is_called_once_per_batch(tmp_path: Path) -> None:
    args, device, model = argparse.Namespace(), torch.device("cpu"), LogSoftmaxNet()
    test_loader = make_loader(10)  # The last batch is smaller. The result is the mean of the batch means.
    evaluator = extensions.Evaluator(
        test_loader, model, eval_func=lambda data, target: test(args, model, device, data, target), progress_bar=True
    )
    with ExtensionsManager(
        model, 1, [extensions.LogReport(), evaluator], iters_per_epoch=2, out_dir=tmp_path
    ) as manager:
        for _ in range(2):
            with manager.run_iteration():
                assert model.training
    with torch.no_grad():
        losses = [F.nll_loss(model(x), y).item() for x, y in test_loader]
        accuracies = [(model(x).argmax(1) == y).double().mean().item() for x, y in test_loader]
    (row,) = read_rows(tmp_path)
    assert row["val/loss"] == pytest.approx(sum(losses) / 3)
    assert row["val/acc"] == pytest.approx(sum(accuracies) / 3)
    assert model.training


def make_ignite_training(
    out: Path, extension_list: list[Any]
) -> tuple[Engine, pte.IgniteExtensionsManager, LogSoftmaxNet]:
    model = LogSoftmaxNet()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(model, optimizer, F.nll_loss)
    manager = pte.IgniteExtensionsManager(
        trainer, {"main": model}, 2, extension_list, optimizers={"main": optimizer}, out_dir=out
    )

    @trainer.on(Events.ITERATION_COMPLETED)
    def report_loss(engine: Engine) -> None:
        pte.reporter.report({"train/loss": engine.state.output})

    return trainer, manager, model


def test_ignite_manager_and_evaluator_log_metrics(tmp_path: Path) -> None:
    model = LogSoftmaxNet()
    evaluator = create_supervised_evaluator(model, metrics={"acc": Accuracy(), "loss": Loss(F.nll_loss)}, device="cpu")
    extension_list = [extensions.LogReport(), extensions.IgniteEvaluator(evaluator, make_loader(), model)]
    trainer, _, _ = make_ignite_training(tmp_path, extension_list)
    trainer.run(make_loader(), max_epochs=2)
    logged = read_rows(tmp_path)
    assert [row["iteration"] for row in logged] == [3, 6]
    assert all({"train/loss", "val/acc", "val/loss"} <= row.keys() for row in logged)


def test_ignite_extensions_run_by_priority_after_handlers(tmp_path: Path) -> None:
    calls: list[str] = []

    @pte.make_extension(priority=pte.PRIORITY_WRITER)
    def first(manager: Any) -> None:
        calls.append(f"writer sees {sorted(manager.observation)}")

    @pte.make_extension(priority=pte.PRIORITY_EDITOR)
    def between(manager: Any) -> None:
        calls.append(f"editor in iteration {manager.engine.state.iteration}")

    @pte.make_extension(priority=pte.PRIORITY_READER)
    def last(manager: Any) -> None:
        calls.append("reader")

    trainer, _, _ = make_ignite_training(tmp_path, [last, between, first])

    @trainer.on(Events.ITERATION_COMPLETED)
    def handler(engine: Engine) -> None:
        calls.append("handler")

    trainer.run(make_loader(4), max_epochs=1)
    assert calls == ["handler", "writer sees ['train/loss']", "editor in iteration 1", "reader"]


def test_snapshot_torch_load_and_load_state_dict_resume_run(tmp_path: Path) -> None:
    def make_training() -> tuple[ExtensionsManager, LogSoftmaxNet, optim.Optimizer]:
        model = LogSoftmaxNet()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        manager = ExtensionsManager(
            model, 4, [extensions.LogReport(), extensions.snapshot()], optimizers=optimizer, out_dir=tmp_path
        )
        return manager, model, optimizer

    def train(manager: ExtensionsManager, model: LogSoftmaxNet, optimizer: optim.Optimizer, epochs: range) -> None:
        for epoch in epochs:
            for i, (x, y) in enumerate(make_loader()):
                with manager.run_iteration(epoch=epoch, iteration=3 * epoch + i, epoch_size=3):
                    optimizer.zero_grad()
                    loss = F.nll_loss(model(x), y)
                    loss.backward()
                    optimizer.step()
                    pte.reporter.report({"train/loss": loss})

    manager, model, optimizer = make_training()
    train(manager, model, optimizer, range(4))
    uninterrupted_rows = [
        {key: row[key] for key in ("epoch", "iteration", "train/loss")} for row in read_rows(tmp_path)
    ]
    weights = model.layer.weight.clone()

    manager, model, optimizer = make_training()
    manager.load_state_dict(torch.load(tmp_path / "snapshot_iter_6"))
    assert manager.iteration == 6
    train(manager, model, optimizer, range(2, 4))
    assert [
        {key: row[key] for key in ("epoch", "iteration", "train/loss")} for row in read_rows(tmp_path)
    ] == uninterrupted_rows
    assert model.layer.weight.equal(weights)


def test_snapshot_loads_without_package(tmp_path: Path) -> None:
    model = LogSoftmaxNet()
    optimizer = optim.SGD(model.parameters(), lr=0.25)
    manager = ExtensionsManager(
        model, 1, [extensions.snapshot()], optimizers=optimizer, iters_per_epoch=1, out_dir=tmp_path
    )
    with manager, manager.run_iteration():
        pass
    code = (
        "import sys, torch; sys.modules['pte_tracking'] = None; state = torch.load(sys.argv[1]); "
        "layer = torch.nn.Linear(4, 3); "
        "weights = {name.removeprefix('layer.'): value for name, value in state['models']['main'].items()}; "
        "layer.load_state_dict(weights); "
        "print(state['optimizers']['main']['param_groups'][0]['lr'], layer.weight.double().sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "snapshot_iter_1")], capture_output=True, text=True, check=True
    )
    rate, total = done.stdout.split()
    assert float(rate) == 0.25
    assert float(total) == pytest.approx(model.layer.weight.double().sum().item())


@pytest.mark.parametrize(
    "name",
    [
        *("Evaluator", "ExponentialShift", "LogReport", "MicroAverage", "PrintReport", "ProgressBar"),
        *("ParameterStatistics", "PlotReport", "observe_lr", "observe_value", "snapshot", "VariableStatisticsPlot"),
    ],
)
def test_extensions_module_exports_extension(name: str) -> None:
    assert callable(getattr(pte.extensions, name))
