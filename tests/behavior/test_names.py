"""API compatibility with Chainer and pytorch-pfn-extras: names, arguments, defaults, keys and files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions, triggers
from pte_tracking.updaters import StandardUpdater

EPOCH = (1, "epoch")

#: Leading positional arguments and their defaults.
SIGNATURES: dict[str, tuple[Any, str]] = {
    "LogReport": (extensions.LogReport, "keys=None, trigger=(1, 'epoch'), postprocess=None, filename=None"),
    "PrintReport": (extensions.PrintReport, "entries=None, log_report='LogReport', out=None"),
    "ProgressBar": (extensions.ProgressBar, "training_length=None, update_interval=1, bar_length=None, out=None"),
    "PlotReport": (
        extensions.PlotReport,
        "y_keys, x_key='iteration', trigger=(1, 'epoch'), postprocess=None, filename=None, marker='x', grid=True",
    ),
    "VariableStatisticsPlot": (
        extensions.VariableStatisticsPlot,
        "targets, max_sample_size=1000, report_data=True, report_grad=True, plot_mean=True, plot_std=True, "
        "percentile_sigmas=(0, 0.13, 2.28, 15.87, 50, 84.13, 97.72, 99.87, 100), trigger=(1, 'epoch'), filename=None, "
        "figsize=None, marker=None, grid=True",
    ),
    "ParameterStatistics": (
        extensions.ParameterStatistics,
        "links, statistics='default', report_params=True, report_grads=True, prefix=None, trigger=(1, 'epoch'), "
        "skip_nan_params=False",
    ),
    "ExponentialShift": (extensions.ExponentialShift, "attr, rate, init=None, target=None, optimizer=None"),
    "MicroAverage": (
        extensions.MicroAverage,
        "numerator_key, denominator_key, result_key, trigger=(1, 'epoch')",
    ),
    "Evaluator": (extensions.Evaluator, "iterator, target"),
    "IgniteEvaluator": (extensions.IgniteEvaluator, "evaluator, iterator, target"),
    "observe_value": (extensions.observe_value, "observation_key, target_func"),
    "snapshot_object": (extensions.snapshot_object, "target, filename"),
    "BestValue": (extensions.BestValue, "key, compare, trigger=(1, 'epoch')"),
    "MinValue": (extensions.MinValue, "key, trigger=(1, 'epoch')"),
    "MaxValue": (extensions.MaxValue, "key, trigger=(1, 'epoch')"),
    "LRScheduler": (extensions.LRScheduler, "scheduler"),
    "IntervalTrigger": (triggers.IntervalTrigger, "period, unit"),
    "EarlyStoppingTrigger": (
        triggers.EarlyStoppingTrigger,
        "check_trigger=(1, 'epoch'), monitor='main/loss', patience=3, mode='auto', verbose=False, "
        "max_trigger=(100, 'epoch')",
    ),
    "BestValueTrigger": (triggers.BestValueTrigger, "key, compare, trigger=(1, 'epoch')"),
    "MaxValueTrigger": (triggers.MaxValueTrigger, "key, trigger=(1, 'epoch')"),
    "MinValueTrigger": (triggers.MinValueTrigger, "key, trigger=(1, 'epoch')"),
    "ManualScheduleTrigger": (triggers.ManualScheduleTrigger, "points, unit"),
    "OnceTrigger": (triggers.OnceTrigger, "call_on_resume=False"),
    "TimeTrigger": (triggers.TimeTrigger, "period"),
    "FunctionTrigger": (triggers.FunctionTrigger, "fn, args=(), kwargs=None, trigger=(1, 'iteration')"),
    "make_extension": (
        pte.make_extension,
        "trigger=(1, 'iteration'), default_name=None, priority=100, finalizer=None, initializer=None, on_error=None",
    ),
    "extend": (pte.Trainer.extend, "self, extension, name=None, trigger=None, priority=None"),
    "StandardUpdater": (StandardUpdater, "iterator, optimizer, converter=None, device=None, loss_func=None"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_leading_arguments_are_compatible(name: str) -> None:
    function, expected = SIGNATURES[name]
    actual = [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert ", ".join(actual).startswith(expected)


@pytest.mark.parametrize(
    ("extension", "name", "trigger", "priority"),
    [
        (lambda: extensions.LogReport(), "LogReport", (1, "iteration"), 100),
        (lambda: extensions.PrintReport(), "PrintReport", (1, "iteration"), 100),
        (lambda: extensions.Evaluator([1], {}, eval_func=print), "validation", EPOCH, 300),
        (lambda: extensions.observe_value("x", lambda _: 1), "observe_value", EPOCH, 300),
        (lambda: extensions.observe_lr("main"), "observe_lr", EPOCH, 300),
        (lambda: extensions.ExponentialShift("lr", 0.5), "ExponentialShift", (1, "iteration"), 100),
        (lambda: extensions.MicroAverage("a", "b", "c"), "MicroAverage", (1, "iteration"), 200),
        (lambda: extensions.ParameterStatistics([]), "parameter_statistics", (1, "iteration"), 300),
        (lambda: extensions.PlotReport(["x"]), "PlotReport", (1, "iteration"), 100),
        (lambda: extensions.snapshot(), "snapshot", EPOCH, -100),
    ],
)
def test_extension_default_name_trigger_and_priority_are_compatible(
    extension: Any, name: str, trigger: Any, priority: int
) -> None:
    entry = extension()
    assert (entry.name or entry.default_name, entry.trigger, entry.priority) == (name, trigger, priority)


def test_extension_default_filenames_are_compatible(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    listed = [
        *(extensions.LogReport(), extensions.PlotReport(["loss"]), extensions.VariableStatisticsPlot(model)),
        *(extensions.snapshot(), extensions.snapshot_object(model, "model_{.epoch}")),
    ]
    manager = pte.ExtensionsManager(model, 1, listed, iters_per_epoch=2, out_dir=tmp_path)
    while not manager.stop_trigger:
        with manager.run_iteration():
            pte.report({"loss": 1.0})
    expected = {"log", "plot.png", "statistics.png", "snapshot_iter_2", "model_1"}
    assert expected <= {path.name for path in tmp_path.iterdir()}


class Encoder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pte.report({"seen": 2.0}, self)
        return x


class ReportingModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Encoder()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        loss: Tensor = self.layer(self.part(x)).sum()
        pte.report({"loss": loss}, self)
        return loss


def test_observation_keys_have_model_and_evaluator_prefixes(tmp_path: Path) -> None:
    model = ReportingModel()
    data = [torch.ones(1), torch.ones(1)]
    listed = [extensions.Evaluator(data, model), extensions.Evaluator(data, model, name="test")]
    manager = pte.ExtensionsManager(model, 1, listed, iters_per_epoch=1, out_dir=tmp_path)
    with manager.run_iteration():
        model(torch.ones(1))
    assert set(manager.observation) == {
        *("main/loss", "main/part/seen"),
        *("validation/main/loss", "validation/main/part/seen"),
        *("test/main/loss", "test/main/part/seen"),
    }


def test_callable_object_keeps_own_name_and_priority(tmp_path: Path) -> None:
    class Stamp:
        name = "stamp"
        priority = 7

        def __call__(self, manager: pte.Manager) -> None: ...

    manager = pte.ExtensionsManager({}, 1, [Stamp(), Stamp()], out_dir=tmp_path)
    assert [manager.get_extension(name).priority for name in ("stamp", "stamp_1")] == [7, 7]


def test_trainer_and_updater_expose_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float, bool]] = []

    class RecordingUpdater(StandardUpdater):
        def update_core(self) -> None:
            seen.append((self.iteration, self.epoch, self.epoch_detail, self.is_new_epoch))
            super().update_core()

    model = ReportingModel()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.target = model
    updater = RecordingUpdater([torch.ones(1), torch.ones(1)], optimizer)
    assert updater.iteration == 0
    trainer = pte.Trainer(updater, (2, "epoch"), tmp_path)
    assert trainer.is_before_training
    trainer.run()
    assert seen == [(0, 0, 0.0, False), (1, 0, 0.5, False), (2, 1, 1.0, True), (3, 1, 1.5, False)]
    assert (updater.iteration, updater.epoch, updater.is_new_epoch) == (4, 2, True)
    assert updater.get_all_optimizers() == {"main": updater.get_optimizer("main")} == {"main": optimizer}
    assert trainer.observation.keys() == {"main/loss", "main/part/seen"}
    assert trainer.elapsed_time > 0
    assert not trainer.is_before_training
    assert trainer.out == str(tmp_path)


def test_transform_model_applies_to_extensions_and_snapshots(tmp_path: Path) -> None:
    inner = nn.Linear(2, 1)
    outer = nn.DataParallel(inner)  # Like DistributedDataParallel, it adds the prefix "module." to all names.

    def unwrap_model(name: str, model: nn.Module) -> nn.Module:
        assert name == "main"
        assert isinstance(model, nn.DataParallel)
        actual: nn.Module = model.module
        return actual

    manager = pte.ExtensionsManager(outer, 1, out_dir=tmp_path, transform_model=unwrap_model)
    assert manager.models["main"] is inner
    assert manager.raw_models["main"] is outer
    assert set(manager.state_dict()["models"]["main"]) == {"weight", "bias"}

    optimizer: Any = torch.optim.SGD(outer.parameters(), lr=0.1)
    optimizer.target = outer
    trainer = pte.Trainer(StandardUpdater([1], optimizer), (1, "epoch"), tmp_path, transform_model=unwrap_model)
    assert trainer.manager.models["main"] is inner


def test_state_dict_layout_is_compatible(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = pte.ExtensionsManager(model, 1, optimizers=optimizer, out_dir=tmp_path)
    state = manager.state_dict()
    assert state["models"].keys() == state["optimizers"].keys() == {"main"}
    assert state["extensions"] == {}
