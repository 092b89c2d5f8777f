"""Errors for invalid arguments: raised at the call, with the argument, its value and the expected value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.utils.data import TensorDataset

import pte_tracking as pte
from pte_tracking import extensions, triggers
from pte_tracking.updaters import StandardUpdater

PAIRS = [(torch.ones(1), torch.ones(1))]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_optimizer() -> Any:
    return optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)


def evaluate_batch(args: Any, model: nn.Module, device: str, data: Tensor, target: Tensor) -> None: ...


def yield_progress(manager: Any) -> Any:
    yield manager.iteration


async def run_later(manager: Any) -> None: ...


def make_manager(out: Path | str = "result", *extension_list: Any, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, 2, extension_list, iters_per_epoch=2, out_dir=out, **options)


#: Invalid call, type of the error, and words that its message must contain.
CASES: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "missing directory": (lambda: make_manager(None), TypeError, ["out_dir", "None", "path"]),  # type: ignore[arg-type]
    "empty directory name": (lambda: make_manager(""), ValueError, ["out_dir", "''", "'.'"]),
    "interval unit": (
        lambda: triggers.IntervalTrigger(1, "day"),
        *(ValueError, ["unit", "'day'", "'epoch' or 'iteration'"]),
    ),
    "extension trigger unit": (
        lambda: make_manager().extend(extensions.LogReport(), trigger=(1, "epochs")),
        *(ValueError, ["unit", "'epochs'", "'epoch' or 'iteration'"]),
    ),
    "inner trigger unit": (
        lambda: extensions.PlotReport(["loss"], trigger=(1, "second")),
        *(ValueError, ["unit", "'second'", "'epoch' or 'iteration'"]),
    ),
    "stop trigger unit": (
        lambda: make_manager(stop_trigger=(1, "hour")),
        *(ValueError, ["unit", "'hour'", "'epoch' or 'iteration'"]),
    ),
    "schedule unit": (
        lambda: triggers.ManualScheduleTrigger([1, 2], "step"),
        *(ValueError, ["unit", "'step'", "'epoch' or 'iteration'"]),
    ),
    "zero period": (lambda: triggers.IntervalTrigger(0, "epoch"), ValueError, ["period", "0", "positive"]),
    "negative period": (lambda: pte.get_trigger((-3, "iteration")), ValueError, ["period", "-3", "positive"]),
    "NaN period": (
        lambda: extensions.LogReport(trigger=(float("nan"), "epoch")),
        *(ValueError, ["period", "nan", "positive"]),
    ),
    "string period": (lambda: triggers.IntervalTrigger("2", "epoch"), TypeError, ["period", "'2'", "number"]),  # type: ignore[arg-type]
    "negative seconds": (lambda: triggers.TimeTrigger(-1), ValueError, ["period", "-1", "positive"]),
    "schedule point": (
        lambda: triggers.ManualScheduleTrigger([1, 0], "epoch"),
        *(ValueError, ["points", "0", "positive"]),
    ),
    "string trigger": (lambda: pte.get_trigger("epoch"), TypeError, ["trigger", "'epoch'", "(period, "]),  # type: ignore[arg-type]
    "trigger class": (
        lambda: make_manager().extend(extensions.LogReport(), trigger=triggers.OnceTrigger),  # type: ignore[arg-type]
        *(TypeError, ["trigger", "class OnceTrigger", "OnceTrigger(...)"]),
    ),
    "trigger function": (lambda: triggers.FunctionTrigger(3), TypeError, ["fn", "3", "function"]),  # type: ignore[arg-type]
    "trigger comparison": (
        lambda: triggers.BestValueTrigger("loss", "min"),  # type: ignore[arg-type]
        *(TypeError, ["compare", "'min'", "function"]),
    ),
    "zero patience": (lambda: triggers.EarlyStoppingTrigger(patience=0), ValueError, ["patience", "0", "at least 1"]),
    "string patience": (
        lambda: triggers.EarlyStoppingTrigger(patience="3"),  # type: ignore[arg-type]
        *(TypeError, ["patience", "'3'", "integer"]),
    ),
    "early stopping mode": (
        lambda: triggers.EarlyStoppingTrigger(mode="least"),
        *(ValueError, ["mode", "'least'", "'auto', 'max' or 'min'"]),
    ),
    "early stopping max_trigger": (
        lambda: triggers.EarlyStoppingTrigger(max_trigger=triggers.OnceTrigger()),
        *(TypeError, ["max_trigger", "OnceTrigger", "(100, 'epoch')"]),
    ),
    "eval_func arity": (
        lambda: extensions.Evaluator(PAIRS, nn.Identity(), eval_func=evaluate_batch),
        *(
            TypeError,
            ["eval_func", "eval_func(part_1, part_2)", "evaluate_batch(args: ", "lambda data, target: evaluate_batch("],
        ),
    ),
    "string eval_func": (
        lambda: extensions.Evaluator(PAIRS, nn.Identity(), eval_func="test"),  # type: ignore[arg-type]
        *(TypeError, ["eval_func", "'test'", "function"]),
    ),
    "extension function without argument": (
        lambda: make_manager("result", lambda: None),
        *(TypeError, ["one argument, the manager", "<lambda>()", "functools.partial"]),
    ),
    "extension function with two arguments": (
        lambda: make_manager("result", pte.make_extension()(lambda manager, scale: None)),  # type: ignore[arg-type,misc]
        *(TypeError, ["one argument, the manager", "<lambda>(manager, scale)"]),
    ),
    "extension generator": (
        lambda: make_manager("result", yield_progress),
        *(TypeError, ["generator yield_progress()", "in place of yield"]),
    ),
    "extension coroutine": (
        lambda: make_manager("result", run_later),
        *(TypeError, ["async def run_later()", "Remove async"]),
    ),
    "scheduler as optimizer": (
        lambda: make_manager(optimizers=optim.lr_scheduler.StepLR(make_optimizer(), 1)),
        *(TypeError, ["optimizers", "scheduler StepLR as 'main'", "extensions.LRScheduler(scheduler)"]),
    ),
    "home directory": (
        lambda: make_manager("~/result"),
        *(ValueError, ["out_dir", "'~/result'", "os.path.expanduser("]),
    ),
    "file as directory": (
        lambda: make_manager(__file__),
        *(NotADirectoryError, ["out_dir", "test_bad_input.py' is a file", "directory"]),
    ),
    "snapshot of a class": (
        lambda: extensions.snapshot_object(nn.Linear, "model"),  # type: ignore[arg-type]
        *(TypeError, ["target", "Linear", "state_dict()"]),
    ),
    "text as loader": (
        lambda: make_manager().iterations("train"),
        *(TypeError, ["loader", "type str", "DataLoader"]),
    ),
    "text as evaluator data": (
        lambda: extensions.Evaluator("val", nn.Identity()),
        *(TypeError, ["iterator", "'val'", "DataLoader"]),
    ),
    "set of columns": (
        lambda: extensions.PrintReport({"epoch", "loss"}),  # type: ignore[arg-type]
        *(TypeError, ["entries", "'epoch'", "list of keys"]),
    ),
    "manager as run directory": (
        lambda: pte.load(make_manager()),  # type: ignore[arg-type]
        *(TypeError, ["run_dir", "ExtensionsManager", "path"]),
    ),
    "weights as state": (
        lambda: make_manager().load_state_dict(nn.Linear(1, 1).state_dict()),
        *(ValueError, ["'weight', 'bias'", "extensions.snapshot()", "model.load_state_dict(torch.load(path))"]),
    ),
    "bytes as artifact": (
        lambda: pte.Run("result").log_artifact(b"model"),  # type: ignore[arg-type]
        *(TypeError, ["path", "b'model'"]),
    ),
    "trigger function without argument": (
        lambda: pte.get_trigger(lambda: True),  # type: ignore[arg-type,misc]
        *(TypeError, ["trigger", "one argument, the manager", "FunctionTrigger(function)"]),
    ),
    "condition with argument": (
        lambda: extensions.snapshot(condition=lambda manager: True),  # type: ignore[arg-type,misc]
        *(TypeError, ["condition", "<lambda>(manager)", "without arguments"]),
    ),
    "source as autoload": (
        lambda: extensions.snapshot(autoload="best"),  # type: ignore[arg-type]
        *(TypeError, ["autoload", "'best'", "manager.resume()"]),
    ),
    "string min_delta": (
        lambda: triggers.EarlyStoppingTrigger(min_delta="0.1"),  # type: ignore[arg-type]
        *(ValueError, ["min_delta", "'0.1'", "number"]),
    ),
    "extension with trigger in a tuple": (
        lambda: make_manager("result", (extensions.LogReport(), (1, "epoch"))),
        *(TypeError, ["extension", "ExtensionEntry(extension, name=..., trigger=...)"]),
    ),
    "list in the list of extensions": (
        lambda: make_manager("result", extensions.defaults(), extensions.observe_lr()),
        *(TypeError, ["extension", "of type list", "*extensions.defaults()]"]),
    ),
    "tensor among tensors of an example": (
        lambda: extensions.export_model(input_example=(torch.zeros(9, 9), (torch.zeros(99, 99),))),
        *(TypeError, ["input_example", "tuple of tensors", "... of type tuple"]),
    ),
    "period of a snapshot": (
        lambda: extensions.snapshot(trigger=(0, "epoch")),
        *(ValueError, ["period", "positive number", "0"]),
    ),
    "unit of a saved object": (
        lambda: extensions.snapshot_object({"a": 1}, "a", trigger=(1, "day")),
        *(ValueError, ["unit", "'day'", "'epoch' or 'iteration'"]),
    ),
    "metric for the newest snapshot": (
        lambda: pte.load("result", best=("val/loss", "min")),
        *(ValueError, ["best", "'latest'", "load(run_dir, 'best', best=('val/loss', 'min'))"]),
    ),
    "generator for several passes": (
        lambda: [*make_manager().iterations(iter([0.5]))],
        *(RuntimeError, ["loader", "list_iterator is exhausted", "__iter__()"]),
    ),
    "sink class": (
        lambda: make_manager(sinks=[pte.sinks.get_sink("json")]),
        *(TypeError, ["sinks", "class JsonSink", "JsonSink(...)"]),
    ),
    "metric without mode": (
        lambda: pte.load("result", "best", best="val/loss"),  # type: ignore[arg-type]
        *(TypeError, ["best", "'val/loss'", "('val/loss', 'min')"]),
    ),
    "transformed model": (
        lambda: pte.ExtensionsManager(nn.Identity(), 1, transform_model=lambda name, model: None),  # type: ignore[arg-type,return-value]
        *(TypeError, ["transform_model", "'main'", "None"]),
    ),
    "values by name": (
        lambda: pte.report(loss=0.5),  # type: ignore[call-arg]
        *(TypeError, ["report: unknown argument 'loss'", "report({'loss': loss})", "Arguments: values, observer."]),
    ),
    "misspelled argument of run": (
        lambda: pte.Run("run", sink=["json"]),  # type: ignore[call-arg]
        *(TypeError, ["Run: unknown argument 'sink'", "Did you mean 'sinks'?"]),
    ),
    "misspelled argument of snapshot": (
        lambda: extensions.snapshot(n_retain=3),  # type: ignore[call-arg]
        *(TypeError, ["snapshot: unknown argument 'n_retain'", "Did you mean 'n_retains'?", "keep_best"]),
    ),
    "misspelled argument of evaluator": (
        lambda: extensions.Evaluator(PAIRS, nn.Identity(), func=print),  # type: ignore[call-arg]
        *(TypeError, ["Evaluator: unknown argument 'func'", "Did you mean 'eval_func'?"]),
    ),
    "misspelled argument of trigger": (
        lambda: triggers.EarlyStoppingTrigger(monitor_key="loss"),  # type: ignore[call-arg]
        *(TypeError, ["EarlyStoppingTrigger: unknown argument 'monitor_key'", "Did you mean 'monitor'?"]),
    ),
    "misspelled argument of manager": (
        lambda: pte.ExtensionsManager({}, 1, outdir="result"),  # type: ignore[call-arg]
        *(TypeError, ["ExtensionsManager: unknown argument 'outdir'", "Did you mean 'out_dir'?"]),
    ),
    "dataset of evaluator": (
        lambda: extensions.Evaluator(TensorDataset(torch.ones(2, 1)), nn.Identity()),  # type: ignore[arg-type]
        *(TypeError, ["iterator", "'main'", "DataLoader(dataset, batch_size=32, shuffle=True)"]),
    ),
    "dataset of updater": (
        lambda: StandardUpdater(TensorDataset(torch.ones(2, 1)), make_optimizer()),  # type: ignore[arg-type]
        *(TypeError, ["iterator", "'main'", "batch_size=None) if its items are batches"]),
    ),
    "swapped evaluator arguments": (
        lambda: extensions.Evaluator(nn.Identity(), PAIRS),  # type: ignore[arg-type]
        *(TypeError, ["iterator", "Identity", "DataLoader"]),
    ),
    "updater target": (
        lambda: StandardUpdater(PAIRS, make_optimizer()),
        *(ValueError, ["optimizer", "'main'", "optimizer.target = model"]),
    ),
    "updater optimizer": (
        lambda: StandardUpdater(PAIRS, nn.Linear(1, 1)),  # type: ignore[arg-type]
        *(TypeError, ["optimizer", "Linear", "expected an optimizer"]),
    ),
    "updater iterator": (
        lambda: StandardUpdater(make_optimizer(), PAIRS),  # type: ignore[arg-type]
        *(TypeError, ["iterator", "SGD", "StandardUpdater(iterator, optimizer)"]),
    ),
    "trainer updater": (
        lambda: pte.Trainer(PAIRS, (1, "epoch")),  # type: ignore[arg-type]
        *(TypeError, ["updater", "StandardUpdater(loader, optimizer)", "tensor"]),
    ),
    "pytorch-pfn-extras argument order": (
        lambda: pte.ExtensionsManager({}, {"main": make_optimizer()}, 10),  # type: ignore[arg-type]
        *(TypeError, ["max_epochs", "SGD", "(models, max_epochs, extensions, optimizers=...)"]),
    ),
    "zero epochs": (lambda: pte.ExtensionsManager({}, 0), ValueError, ["max_epochs", "0", "positive"]),
    "epoch length": (
        lambda: pte.ExtensionsManager({}, 1, iters_per_epoch=0),
        *(ValueError, ["iters_per_epoch", "0", "at least one"]),
    ),
    "stateless model": (
        lambda: pte.ExtensionsManager({"net": 3}, 1),  # type: ignore[dict-item]
        *(TypeError, ["models", "'net'", "3", "state_dict()"]),
    ),
    "unnamed optimizers": (
        lambda: make_manager(optimizers=[make_optimizer()]),
        *(TypeError, ["optimizers", "SGD", "dictionary"]),
    ),
    "extension class": (
        lambda: make_manager("result", extensions.LogReport),
        *(TypeError, ["extension", "class LogReport", "LogReport()"]),
    ),
    "single extension": (
        lambda: pte.ExtensionsManager({}, 1, extensions.LogReport()),  # type: ignore[arg-type]
        *(TypeError, ["extensions", "LogReport", "list"]),
    ),
    "trigger as name": (
        lambda: make_manager().extend(extensions.LogReport(), (1, "iteration")),  # type: ignore[arg-type]
        *(TypeError, ["name", "(1, 'iteration')", "trigger="]),
    ),
    "priority": (
        lambda: make_manager().extend(extensions.LogReport(), priority="first"),  # type: ignore[arg-type]
        *(TypeError, ["priority", "'first'", "integer"]),
    ),
    "engine": (
        lambda: pte.IgniteExtensionsManager(nn.Identity(), {}, 1),  # type: ignore[arg-type]
        *(TypeError, ["engine", "Identity", "ignite.engine.Engine"]),
    ),
    "rate": (
        lambda: extensions.ExponentialShift("lr", -1.0),
        *(ValueError, ["rate", "-1.0", "non-negative"]),
    ),
    "plot keys": (lambda: extensions.PlotReport([]), ValueError, ["y_keys", "[]", "['train/loss']"]),
    "picture format": (
        lambda: extensions.PlotReport(["loss"], filename="plot.doc"),
        *(ValueError, ["filename", "'plot.doc'", ".png"]),
    ),
    "scheduler": (
        lambda: extensions.LRScheduler(make_optimizer()),
        *(TypeError, ["scheduler", "SGD", "StepLR(optimizer, 10)"]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_argument_error_names_argument_value_and_expectation(case: str) -> None:
    action, error, expected_words = CASES[case]
    with pytest.raises(error) as caught:
        action()
    assert [word for word in expected_words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("extension", "owner"),
    [
        (lambda: extensions.observe_lr("generator"), "observe_lr"),
        (lambda: extensions.ExponentialShift("lr", 0.5, optimizer="generator"), "ExponentialShift"),
    ],
)
def test_missing_optimizer_error_lists_available_optimizers(
    extension: Callable[[], pte.Extension], owner: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"{owner}: unknown optimizer 'generator'. Optimizers of the manager: 'main'"):
        make_manager(tmp_path, extension(), optimizers={"main": make_optimizer()})


def test_plot_report_unreported_key_warns_once_at_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = make_manager(tmp_path, extensions.LogReport(), extensions.PlotReport(["loss", "los"]))
    for i in range(4):
        assert "PlotReport" not in caplog.text
        with training.run_iteration():
            pte.report({"loss": i})
    assert training.stop_trigger
    (message,) = (message for message in caplog.messages if "PlotReport" in message)
    assert "'los'" in message
    assert "'loss'" in message
    assert (tmp_path / "plot.png").exists()


def test_load_state_dict_other_extensions_error_lists_differences(tmp_path: Path) -> None:
    with make_manager(tmp_path / "a", extensions.LogReport(), extensions.MicroAverage("x", "y", "z")) as other:
        with other.run_iteration():
            pass
        state = other.state_dict()
    restored = make_manager(tmp_path / "b", extensions.LogReport(), extensions.MinValue("x"), extensions.MaxValue("x"))
    with pytest.raises(
        ValueError,
        match=r"extensions: not in the snapshot: 'min_value', 'max_value'.*only in the snapshot: 'MicroAverage'",
    ):
        restored.load_state_dict(state)
    assert restored.iteration == 0


def test_make_extension_missing_parentheses_raises_type_error(tmp_path: Path) -> None:
    """Without the check, the decorator object would be registered and the function never called."""

    @pte.make_extension
    def do_nothing(manager: Any) -> None:
        pass

    with (
        pytest.raises(TypeError, match=r"make_extension: .*@make_extension\(\) with parentheses"),
        make_manager(tmp_path, do_nothing).run_iteration(),
    ):
        pass
