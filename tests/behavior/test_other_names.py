"""Spellings and argument orders of Chainer and pytorch-pfn-extras: accepted, or refused with a replacement."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.updaters import StandardUpdater
from tests.needs import check_requirement


def make_optimizer(model: nn.Module | None = None) -> torch.optim.SGD:
    return torch.optim.SGD((model or nn.Linear(1, 1)).parameters(), lr=0.5)


def make_updater() -> StandardUpdater:
    model = nn.Linear(1, 1)
    optimizer = make_optimizer(model)
    optimizer.target = model  # type: ignore[attr-defined]
    return StandardUpdater([torch.ones(1, 1)] * 2, optimizer, loss_func=lambda x: model(x).sum())


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function without type checks, as a script of another library does."""
    return function(*args, **kwargs)


def report_once(extension: Any, out_dir: Path) -> dict[str, Any]:
    """Train for one iteration. Return the reported values."""
    manager = pte.ExtensionsManager({}, 1, [extension], iters_per_epoch=1, out_dir=out_dir)
    with manager, manager.run_iteration():
        pte.report({"loss": 1.0})
    return dict(manager.observation)


def test_trainer_accepts_out_as_name_of_the_run_directory(tmp_path: Path) -> None:
    trainer = call(pte.Trainer, make_updater(), (1, "epoch"), out=tmp_path / "run")
    assert trainer.out == str(tmp_path / "run")


@pytest.mark.parametrize("plot", [extensions.PlotReport, extensions.VariableStatisticsPlot])
def test_plots_accept_file_name(plot: Any, tmp_path: Path) -> None:
    target = "loss" if plot is extensions.PlotReport else nn.Linear(1, 1)
    extension = call(plot, target, trigger=(1, "iteration"), file_name="curve.png")
    report_once(extension, tmp_path)
    assert (tmp_path / "curve.png").is_file()


def test_log_report_accepts_log_name(tmp_path: Path) -> None:
    log = call(extensions.LogReport, log_name="rows.json")
    report_once(log, tmp_path)
    assert (tmp_path / "rows.json").is_file()


def test_observe_lr_accepts_optimizer_by_keyword(tmp_path: Path) -> None:
    optimizer = make_optimizer()
    observe = call(extensions.observe_lr, optimizer=optimizer, observation_key="rate")
    assert report_once(observe, tmp_path) == {"rate": 0.5, "loss": 1.0}


@pytest.mark.parametrize(
    ("function", "argument", "other"),
    [
        (extensions.PlotReport, "filename", "file_name"),
        (extensions.LogReport, "filename", "log_name"),
        (extensions.observe_lr, "optimizer_name", "optimizer"),
    ],
)
def test_both_names_of_an_argument_raise_type_error(function: Any, argument: str, other: str) -> None:
    with pytest.raises(TypeError, match=rf"{other}= and {argument}= are the same argument"):
        call(function, **{argument: "a", other: "a"})


def test_decorated_functions_keep_their_signatures() -> None:
    assert "file_name" not in inspect.signature(extensions.PlotReport).parameters
    assert list(inspect.signature(pte.ExtensionsManager).parameters)[:3] == ["models", "max_epochs", "extensions"]


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Sequence[str]]] = {
    "manager writer": (pte.ExtensionsManager, ({}, 1), {"writer": object()}, ["writer=", "sinks=", "out_dir="]),
    "manager profile": (
        pte.ExtensionsManager,
        ({}, 1),
        {"enable_profile": True},
        ["enable_profile=", "torch.profiler"],
    ),
    "trainer writer": (pte.Trainer, (), {"writer": object()}, ["writer=", "sinks="]),
    "snapshot writer": (
        extensions.snapshot,
        (),
        {"writer": object(), "autoload": True},
        ["snapshot: writer=", "sinks="],
    ),
    "snapshot savefun": (extensions.snapshot, (), {"savefun": torch.save}, ["savefun=", "torch.save"]),
    "snapshot rank": (extensions.snapshot, (), {"saver_rank": 0}, ["saver_rank=", "Rank 0"]),
    "object savefun": (extensions.snapshot_object, ({}, "a"), {"savefun": torch.save}, ["savefun="]),
    "log append": (extensions.LogReport, (), {"append": True}, ["append=", "always appended"]),
    "log format": (extensions.LogReport, (), {"format": "yaml"}, ["format=", "JSON"]),
    "plot writer": (extensions.PlotReport, ("loss",), {"writer": object()}, ["writer=", "sinks="]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_argument_without_counterpart_raises_type_error_with_replacement(name: str) -> None:
    function, args, kwargs, parts = REFUSED[name]
    with pytest.raises(TypeError) as result:
        function(*args, **kwargs)
    assert all(part in str(result.value) for part in parts), result.value


def test_argument_without_counterpart_at_its_default_is_ignored() -> None:
    call(extensions.snapshot, savefun=None, writer=None, saver_rank=None)
    call(extensions.LogReport, append=False, format=None)


POSITIONAL: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "optimizer": ((20,), {}),
    "extensions as well": ((20, []), {}),
    "extensions by name": ((20,), {"extensions": []}),
    "epochs by name": ((), {"max_epochs": 20}),
    "all": ((20, [], "result", None, None), {}),
}


@pytest.mark.parametrize("name", POSITIONAL)
@pytest.mark.parametrize("by_name", [False, True])
def test_optimizer_in_second_place_raises_type_error_that_names_optimizers(name: str, by_name: bool) -> None:
    rest, kwargs = POSITIONAL[name]
    optimizer = {"main": make_optimizer()} if by_name else make_optimizer()
    with pytest.raises(TypeError, match=r"max_epochs: expected a number, .*\(models, max_epochs, .*optimizers=\.\.\."):
        call(pte.ExtensionsManager, nn.Linear(1, 1), optimizer, *rest, iters_per_epoch=4, **kwargs)


def test_optimizer_in_third_place_of_ignite_manager_raises_type_error_that_names_optimizers() -> None:
    try:
        from ignite.engine import Engine
    except ImportError:
        check_requirement("Requires Ignite. Run: pip install pytorch-ignite")
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(TypeError, match=r"\(engine, models, max_epochs, extensions, optimizers=\.\.\.\)"):
        call(pte.IgniteExtensionsManager, engine, nn.Linear(1, 1), make_optimizer(), 20, extensions=[])


def test_optimizer_in_last_place_raises_type_error_that_names_optimizers() -> None:
    with pytest.raises(TypeError, match=r"at most 3 positional arguments \(models, .*\), got 4.* optimizers=optimizer"):
        call(pte.ExtensionsManager, nn.Linear(1, 1), 20, [], make_optimizer())


def test_observation_key_in_second_place_raises_type_error() -> None:
    with pytest.raises(TypeError, match=r"param_group: .* got 'rate' .*observation_key='rate'"):
        call(extensions.observe_lr, "main", "rate")


@pytest.mark.parametrize(
    "url", ["s3://bucket/run", "gs://bucket/run", "file:///tmp/run", "dbfs:/run", Path("s3://bucket/run")]
)
def test_out_dir_url_raises_value_error_and_creates_nothing(
    url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (lambda: pte.ExtensionsManager({}, 1, out_dir=url), lambda: pte.Run(url)):
        with pytest.raises(ValueError, match=r"(out_dir|directory): expected a local directory, got the URL '.*:/"):
            make()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a:b", "./s3:/x", "C:/x"])
def test_out_dir_with_colon_is_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pte.Run(name).directory == tmp_path / name


class Halving:
    """Scheduler without a base class, a constructor, or a way to restore it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.steps = optimizer, 0

    def step(self) -> None:
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] /= 2

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}


class Descent:
    """Optimizer without a base class."""

    def __init__(self, model: nn.Module) -> None:
        self.target = model
        self.param_groups = [{"params": list(model.parameters()), "lr": 0.5}]

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.target.parameters():
            assert parameter.grad is not None
            parameter -= self.param_groups[0]["lr"] * parameter.grad

    def state_dict(self) -> dict[str, Any]:
        return {"lr": self.param_groups[0]["lr"]}


class RestorableDescent(Descent):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.param_groups[0]["lr"] = state["lr"]


def train(out_dir: Path, optimizer_class: Any, epochs: int) -> tuple[float, float]:
    """Train with an object like an optimizer. Return the learning rate observed last, and the one after it."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    optimizer = optimizer_class(model)
    scheduler = Halving(optimizer)
    updater = StandardUpdater([torch.ones(1, 1)] * 2, optimizer, loss_func=lambda x: model(x).sum())
    trainer = pte.Trainer(
        updater, (epochs, "epoch"), out_dir,
        [extensions.LRScheduler(scheduler), extensions.observe_lr(trigger=(1, "iteration")), extensions.snapshot()],
    )  # fmt: skip
    trainer.resume()
    trainer.run()
    rate: Any = trainer.observation["lr"]
    return float(rate), optimizer.param_groups[0]["lr"]


def test_objects_like_optimizers_and_schedulers_train_and_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        assert train(tmp_path, RestorableDescent, 1) == (0.5, 0.25)
        assert train(tmp_path, RestorableDescent, 2) == (0.25, 0.125)
    assert [message.partition(" has no ")[0] for message in caplog.messages].count("LRScheduler: Halving") == 2


def test_optimizer_without_load_state_dict_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        assert train(tmp_path, Descent, 1) == (0.5, 0.25)
        assert train(tmp_path, Descent, 2) == (0.5, 0.25)
    assert sum("optimizers: 'main' (Descent) has no load_state_dict()" in message for message in caplog.messages) == 2


def test_manager_object_without_step_as_optimizer_raises_type_error() -> None:
    with pytest.raises(TypeError, match=r"optimizers: expected an optimizer with step\(\) and state_dict\(\)"):
        call(pte.ExtensionsManager, {}, 1, optimizers=nn.Linear(1, 1))


def test_observe_lr_of_object_without_parameter_groups_raises_type_error() -> None:
    class Wrapper:
        def step(self) -> None: ...

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    with pytest.raises(TypeError, match=r"observe_lr: Wrapper has no param_groups. Pass the optimizer that it wraps"):
        call(pte.ExtensionsManager, {}, 1, [extensions.observe_lr()], optimizers=Wrapper())


@pytest.mark.parametrize("make", [
    lambda trigger: extensions.observe_value("x", lambda manager: manager.iteration, trigger=trigger),
    lambda trigger: extensions.observe_lr(make_optimizer(), observation_key="x", trigger=trigger),
])  # fmt: skip
def test_observers_accept_trigger(tmp_path: Path, make: Callable[[Any], Any]) -> None:
    manager = pte.ExtensionsManager({}, 1, [make((2, "iteration"))], iters_per_epoch=4, out_dir=tmp_path, sinks=[])
    fired = []
    with manager:
        for iteration in range(1, 5):
            with manager.run_iteration():
                pass
            if "x" in manager.observation:
                fired.append(iteration)
    assert fired == [2, 4]


def test_snapshot_autoload_resumes_without_writer(tmp_path: Path) -> None:
    for epochs in (1, 2):
        manager = pte.ExtensionsManager(
            nn.Linear(1, 1), epochs, [extensions.snapshot(autoload=True)], iters_per_epoch=2, out_dir=tmp_path
        )
        iterations = []
        for _ in manager.batches([0, 1]):
            with manager.run_iteration():
                iterations.append(manager.iteration)
    assert iterations == [2, 3]
