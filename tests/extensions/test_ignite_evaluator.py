"""Tests of IgniteEvaluator: metrics of the engine, and values reported during its run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import ExtensionsManager, Reporter
from pte_tracking.extensions import IgniteEvaluator

ignite_engine = pytest.importorskip("ignite.engine")
ignite_metrics = pytest.importorskip("ignite.metrics")

LOADER = DataLoader(TensorDataset(torch.randn(10, 2), torch.zeros(10, dtype=torch.long)), batch_size=3)


class CountingModel(nn.Module):
    """Model that reports the number of earlier calls and predicts class 0 for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout().eval()
        self.count = 0

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        assert not self.training
        pte.report({"x": self.count}, self)
        self.count += 1
        return torch.tensor([[1.0, 0.0]]).expand(len(data), 2)


def make_engine(model: nn.Module, **metrics: Any) -> Any:
    return ignite_engine.create_supervised_evaluator(model, metrics={"acc": ignite_metrics.Accuracy(), **metrics})


def test_ignite_evaluator_returns_metrics_and_reported_values() -> None:
    model = CountingModel()
    assert IgniteEvaluator(make_engine(model), LOADER, model)() == {"main/x": 1.5, "val/acc": 1.0}


def test_ignite_evaluator_name_prefixes_all_keys() -> None:
    model = CountingModel()
    assert IgniteEvaluator(make_engine(model), LOADER, model, name="test")() == {"test/main/x": 1.5, "test/acc": 1.0}


def test_ignite_evaluator_in_manager_uses_val_prefix(tmp_path: Path) -> None:
    model = CountingModel()
    extensions = [IgniteEvaluator(make_engine(model), LOADER, model), IgniteEvaluator(make_engine(model), LOADER, {})]
    manager = ExtensionsManager({}, 1, extensions, iters_per_epoch=1, out_dir=tmp_path, sinks=[])
    with pytest.raises(KeyError, match="CountingModel is not registered"), manager.run_iteration():
        pass
    assert manager.observation == {"val/main/x": 1.5, "val/acc": 1.0}


def test_ignite_evaluator_restores_module_modes() -> None:
    model = CountingModel()
    IgniteEvaluator(make_engine(model), LOADER, model)()
    assert [module.training for module in model.modules()] == [True, False]


def test_ignite_evaluator_rerun_leaves_handlers_unchanged() -> None:
    model = CountingModel()
    engine = make_engine(model)
    evaluator = IgniteEvaluator(engine, LOADER, model)
    handlers = {event: len(registered) for event, registered in engine._event_handlers.items()}
    assert evaluator()["main/x"] == 1.5
    assert evaluator()["main/x"] == 5.5
    assert {event: len(registered) for event, registered in engine._event_handlers.items() if registered} == {
        event: count for event, count in handlers.items() if count
    }


def test_ignite_evaluator_handler_reports_are_averaged() -> None:
    model = CountingModel()
    engine = make_engine(model)
    evaluator = IgniteEvaluator(engine, LOADER, model)
    events = ignite_engine.Events
    engine.add_event_handler(events.ITERATION_STARTED, lambda: pte.report({"started": engine.state.iteration}))
    engine.add_event_handler(events.ITERATION_COMPLETED, lambda: pte.report({"done": engine.state.iteration}))
    engine.add_event_handler(events.COMPLETED, lambda: pte.report({"completed": 7}))
    with Reporter() as reporter:
        means = evaluator()
    assert means == {"main/x": 1.5, "val/acc": 1.0, "started": 2.5, "done": 2.5, "completed": 7}
    assert reporter.observation == means


def test_ignite_evaluator_engine_error_restores_state() -> None:
    model = CountingModel()
    engine = make_engine(model)
    failing = True

    def fail() -> None:
        if failing:
            raise ArithmeticError

    engine.add_event_handler(ignite_engine.Events.ITERATION_COMPLETED(once=2), fail)
    evaluator = IgniteEvaluator(engine, LOADER, model)
    with Reporter() as reporter, pytest.raises(ArithmeticError):
        evaluator()
    assert reporter.observation == {}
    assert model.training
    assert torch.is_grad_enabled()
    failing = False
    assert evaluator()["val/acc"] == 1


def test_ignite_evaluator_non_scalar_metric_is_skipped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = CountingModel()
    engine = make_engine(model, matrix=ignite_metrics.ConfusionMatrix(2))
    evaluator = IgniteEvaluator(engine, LOADER, model)
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        assert set(evaluator()) == set(evaluator()) == {"main/x", "val/acc"}
    assert caplog.text.count("'matrix' is not reported") == 1


def test_ignite_evaluator_eval_hook_runs_and_bar_needs_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    model = CountingModel()
    called: list[IgniteEvaluator] = []
    evaluator = IgniteEvaluator(make_engine(model), LOADER, model, eval_hook=called.append, progress_bar=True)
    evaluator()
    assert called == [evaluator]
    assert capsys.readouterr().err == ""


def test_ignite_evaluator_swapped_arguments_raise_type_error() -> None:
    with pytest.raises(TypeError, match=r"evaluator: expected an ignite.engine.Engine, got .*DataLoader.*data second"):
        IgniteEvaluator(LOADER, CountingModel(), CountingModel())  # type: ignore[arg-type]


def test_ignite_evaluator_in_ignite_manager_reports_each_epoch(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    trainer = ignite_engine.create_supervised_trainer(model, torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy)
    evaluator = make_engine(model, loss=ignite_metrics.Loss(F.cross_entropy))
    observed: list[set[str]] = []

    @pte.make_extension(trigger=(1, "iteration"))
    def record_keys(manager: Any) -> None:
        observed.append(set(manager.observation))

    extensions = [record_keys, IgniteEvaluator(evaluator, LOADER, model)]
    pte.IgniteExtensionsManager(trainer, model, 2, extensions, out_dir=tmp_path, sinks=[])
    trainer.add_event_handler(
        ignite_engine.Events.ITERATION_COMPLETED, lambda: pte.report({"train/loss": trainer.state.output})
    )
    trainer.run(LOADER, max_epochs=2)
    train, both = {"train/loss"}, {"train/loss", "val/acc", "val/loss"}
    assert observed == [train, train, train, both] * 2
    assert model.training
