"""Resume of a training whose script was changed: the new arguments decide, or a message reports that they do not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import pte_tracking as pte
from pte_tracking import extensions, triggers

MakeScheduler = Callable[[Any], Any]


class Averager:
    """State object with an argument, a counter, and an inner object with a state."""

    def __init__(self, decay: float, inner: Any = None) -> None:
        self.decay, self.inner, self.count = decay, inner, 0

    def step(self) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"decay": self.decay, "count": self.count, "inner": self.inner and self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.decay, self.count = state["decay"], state["count"]
        if self.inner is not None:
            self.inner.load_state_dict(state["inner"])


class Decay:
    """Callable object whose attributes are part of the state of a LambdaLR."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: int) -> float:
        return 1 - step / self.steps


def make(directory: Path, item: Any, optimizer: Any, epochs: int = 1, *more: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(1, 1),
        epochs,
        [extensions.snapshot(), *more],
        optimizers=optimizer,
        state_objects={"item": item} if item is not None else None,
        iters_per_epoch=4,
        out_dir=directory,
        sinks=[],
    )


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)


def train(manager: pte.ExtensionsManager, step: Callable[[], object]) -> None:
    while not manager.stop_trigger:
        with manager.run_iteration():
            manager.optimizers["main"].step()
            step()


def resume(directory: Path, change: Callable[[Any], Any], epochs: int = 2, **options: Any) -> Any:
    """Resume with another item, start the first iteration, and return the item."""
    optimizer = make_optimizer()
    item = change(optimizer)
    manager = make(directory, item, optimizer, epochs)
    manager.resume(**options)
    with manager.run_iteration():
        pass
    manager.close()
    return item


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=4),
            lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=8),
            "total_iters of the state object 'item' (LinearLR) is 4, not 8",
        ),
        (
            lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=5),
            lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=9),
            "total_steps of the state object 'item' (OneCycleLR) is 5, not 9",
        ),
        (
            lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 4),
            lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 8),
            "T_max of the state object 'item' (CosineAnnealingLR) is 4, not 8",
        ),
        (
            lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 9),
            lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 18),
            "T_0 of the state object 'item' (CosineAnnealingWarmRestarts) is 9, not 18",
        ),
        (
            lambda optimizer: lr_scheduler.PolynomialLR(optimizer, 4),
            lambda optimizer: lr_scheduler.PolynomialLR(optimizer, 8),
            "total_iters of the state object 'item' (PolynomialLR) is 4, not 8",
        ),
        (
            lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma=0.5),
            lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma=0.1),
            "gamma of the state object 'item' (StepLR) is 0.5, not 0.1",
        ),
        (
            lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 6]),
            lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [3, 6]),
            "milestones of the state object 'item' (MultiStepLR) is Counter({2: 1, 6: 1}), not Counter({3: 1, 6: 1})",
        ),
        (
            lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.1, 0.5, step_size_up=3),
            lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.1, 0.5, step_size_up=6),
            "total_size of the state object 'item' (CyclicLR) is 6.0, not 12.0",
        ),
        (
            lambda optimizer: lr_scheduler.SequentialLR(
                optimizer, [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)], [2]
            ),
            lambda optimizer: lr_scheduler.SequentialLR(
                optimizer, [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)], [3]
            ),
            "schedulers[1].gamma of the state object 'item' (ExponentialLR) is 0.5, not 0.9",
        ),
        (
            lambda optimizer: lr_scheduler.LambdaLR(optimizer, Decay(4)),
            lambda optimizer: lr_scheduler.LambdaLR(optimizer, Decay(8)),
            "lr_lambdas[0].steps of the state object 'item' (Decay) is 4, not 8",
        ),
        (
            lambda optimizer: torch.amp.GradScaler("cpu", growth_interval=100),
            lambda optimizer: torch.amp.GradScaler("cpu", growth_interval=5),
            "growth_interval of the state object 'item' (GradScaler) is 100, not 5",
        ),
        (
            lambda optimizer: Averager(0.9),
            lambda optimizer: Averager(0.99),
            "decay of the state object 'item' (Averager) is 0.9, not 0.99",
        ),
        (
            lambda optimizer: Averager(0.9, Averager(0.5)),
            lambda optimizer: Averager(0.9, Averager(0.7)),
            "inner.decay of the state object 'item' (Averager) is 0.5, not 0.7",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_resume_with_other_arguments_names_both_values_before_the_first_iteration(
    tmp_path: Path, caplog: Any, first: MakeScheduler, second: MakeScheduler, expected: str
) -> None:
    optimizer = make_optimizer()
    item = first(optimizer)
    step = getattr(item, "step", None) if not isinstance(item, torch.amp.GradScaler) else None
    train(make(tmp_path, item, optimizer), step or (lambda: None))
    with caplog.at_level(logging.WARNING):
        resume(tmp_path, first)
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        resume(tmp_path, second)
    (message,) = caplog.messages
    assert expected in message
    assert message.startswith("The restored state decides, not the arguments that the script gives now: ")
    assert message.endswith("To use those of the script from here on, call resume(allow=['item']).")


def test_resume_with_other_arguments_reports_them_at_each_start(tmp_path: Path, caplog: Any) -> None:
    optimizer = make_optimizer()
    train(make(tmp_path, Averager(0.9), optimizer), lambda: None)
    for epochs in (2, 3):
        with caplog.at_level(logging.WARNING):
            optimizer = make_optimizer()
            manager = make(tmp_path, Averager(0.5), optimizer, epochs)
            manager.resume()
            train(manager, lambda: None)
    assert len(caplog.messages) == 2
    assert all("is 0.9, not 0.5" in message for message in caplog.messages)


def test_resume_with_an_argument_set_after_it_reports_nothing(tmp_path: Path, caplog: Any) -> None:
    train(make(tmp_path, Averager(0.9), make_optimizer()), lambda: None)
    for epochs in (2, 3):
        item = Averager(0.5)
        manager = make(tmp_path, item, make_optimizer(), epochs)
        with caplog.at_level(logging.WARNING):
            manager.resume()
            item.decay = 0.5
            train(manager, lambda: None)
    assert caplog.messages == []


@pytest.mark.parametrize("as_extension", [False, True])
def test_resume_that_allows_a_scheduler_follows_its_new_horizon(
    tmp_path: Path, caplog: Any, as_extension: bool
) -> None:
    def run(directory: Path, epochs: int, **options: Any) -> list[float]:
        optimizer, rates = make_optimizer(), []
        scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=4 * epochs + 1)
        extension = extensions.LRScheduler(scheduler, trigger=(1, "iteration"))
        item, more = (None, (pte.ExtensionEntry(extension, name="item"),)) if as_extension else (scheduler, ())
        manager = make(directory, item, optimizer, epochs, *more)
        if options:
            manager.resume(**options)
        while not manager.stop_trigger:
            with manager.run_iteration():
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                if not as_extension:
                    scheduler.step()
        return rates

    run(tmp_path / "run", 2)
    with caplog.at_level(logging.WARNING):
        rates = run(tmp_path / "run", 4, allow=["item"])
    assert rates[1:] == pytest.approx(run(tmp_path / "whole", 4)[9:])
    assert caplog.messages == []


SCHEDULES: dict[str, Callable[[Any, int], Any]] = {
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "linear": lambda optimizer, steps: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps),
    "polynomial": lambda optimizer, steps: lr_scheduler.PolynomialLR(optimizer, steps, power=2.0),
    "exponential": lambda optimizer, steps: lr_scheduler.ExponentialLR(optimizer, 1 - 1 / steps),
    "steps": lambda optimizer, steps: lr_scheduler.StepLR(optimizer, steps // 4),
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, 0.5, steps + 1),
    "sequential": lambda optimizer, steps: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 2), lr_scheduler.CosineAnnealingLR(optimizer, steps - 2)],
        [2],
    ),
}


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resume_that_allows_a_scheduler_continues_at_the_rate_of_its_new_schedule(
    tmp_path: Path, schedule: str, as_tensor: bool
) -> None:
    def run(directory: Path, epochs: int, **options: Any) -> list[float]:
        rate: Any = torch.tensor(0.1) if as_tensor else 0.1
        optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=rate, foreach=False)
        scheduler, rates = SCHEDULES[schedule](optimizer, 4 * epochs), []
        manager = make(directory, scheduler, optimizer, epochs)
        if options:
            manager.resume(**options)
        while not manager.stop_trigger:
            with manager.run_iteration():
                rates.append(float(optimizer.param_groups[0]["lr"]))
                optimizer.step()
                scheduler.step()
        return rates

    run(tmp_path / "run", 2)
    rates = run(tmp_path / "run", 4, allow=["item"])
    assert rates == pytest.approx(run(tmp_path / "whole", 4)[8:], rel=1e-4)


def test_resume_that_allows_one_of_two_schedulers_continues_at_the_current_rate(tmp_path: Path) -> None:
    def run(epochs: int, **options: Any) -> float:
        optimizer = make_optimizer()
        linear = lr_scheduler.LinearLR(optimizer, 1.0, 0.5, 4 * epochs)
        other = lr_scheduler.ExponentialLR(optimizer, 0.9)
        entry = pte.ExtensionEntry(extensions.LRScheduler(other, trigger=(1, "iteration")), name="other")
        manager = make(tmp_path, linear, optimizer, epochs, entry)
        if options:
            manager.resume(**options)
        rate = float(optimizer.param_groups[0]["lr"])
        train(manager, linear.step)
        return rate if options else float(optimizer.param_groups[0]["lr"])

    last = run(1)
    assert run(2, allow=["item"]) == pytest.approx(last)


def test_resume_of_another_scheduler_class_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    train(make(tmp_path, lr_scheduler.StepLR(optimizer := make_optimizer(), 1), optimizer), lambda: None)

    def change(optimizer: Any) -> Any:
        return lr_scheduler.CosineAnnealingLR(optimizer, 8)

    with pytest.raises(
        ValueError, match=r"'item' is of type StepLR in the snapshot and of type CosineA.*allow=\['item'"
    ):
        resume(tmp_path, change)
    assert resume(tmp_path, change, allow=["item"]).T_max == 8


def test_resume_of_another_scheduler_in_an_extension_is_refused(tmp_path: Path) -> None:
    def make_with(make_scheduler: MakeScheduler, epochs: int) -> pte.ExtensionsManager:
        optimizer = make_optimizer()
        return make(tmp_path, None, optimizer, epochs, extensions.LRScheduler(make_scheduler(optimizer)))

    train(make_with(lambda optimizer: lr_scheduler.StepLR(optimizer, 1), 1), lambda: None)
    manager = make_with(lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.5), 2)
    expected = (
        "scheduler of the extension 'LRScheduler' is of type StepLR in the snapshot and of type ExponentialLR now"
    )
    with pytest.raises(ValueError, match=expected):
        manager.resume()


def test_resume_that_allows_new_and_removed_objects_continues_without_them(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.ERROR):
        train(make(tmp_path, Averager(0.9), make_optimizer(), 1, extensions.MinValue("x")), lambda: None)
    caplog.clear()

    def make_changed() -> pte.ExtensionsManager:
        return make(tmp_path, None, make_optimizer(), 2, extensions.MaxValue("x"))

    with pytest.raises(ValueError, match=r"pass allow=\['item', 'max_value', 'min_value'\]"):
        make_changed().resume()
    with caplog.at_level(logging.WARNING):
        manager = make_changed()
        manager.resume(allow=["item", "max_value", "min_value"])
    assert manager.iteration == 4
    assert caplog.messages == [
        "resume: the extension 'max_value' starts as constructed. The snapshot does not contain it."
    ]


def test_resume_that_allows_an_object_that_refuses_its_state_continues_without_it(tmp_path: Path, caplog: Any) -> None:
    train(make(tmp_path, torch.amp.GradScaler("cpu", enabled=False), make_optimizer()), lambda: None)

    def change(_: Any) -> Any:
        return torch.amp.GradScaler("cpu", init_scale=8.0)

    with pytest.raises(ValueError, match=r"the state object 'item', of type GradScaler, cannot .*allow=\['item'\]"):
        resume(tmp_path, change)
    with caplog.at_level(logging.WARNING):
        assert resume(tmp_path, change, allow=["item"]).get_scale() == 8.0
    assert "'item' starts as constructed." in caplog.messages[0]


def test_resume_that_allows_a_model_of_another_shape_keeps_its_weights(tmp_path: Path, caplog: Any) -> None:
    def make_with(width: int) -> tuple[Any, pte.ExtensionsManager]:
        models: Any = {"body": nn.Linear(2, 2), "head": nn.Linear(2, width)}
        options: Any = {"iters_per_epoch": 2, "out_dir": tmp_path, "sinks": []}
        return models, pte.ExtensionsManager(models, 2, [extensions.snapshot()], **options)

    models, manager = make_with(3)
    while manager.iteration < 2:
        with manager.run_iteration():
            pass
    manager.close()
    with pytest.raises(ValueError, match="head"):
        make_with(5)[1].resume()
    changed, manager = make_with(5)
    with caplog.at_level(logging.WARNING):
        manager.resume(allow=["head"])
    assert changed["body"].weight.equal(models["body"].weight)
    assert "the model 'head' starts as constructed." in caplog.messages[0]


@pytest.mark.parametrize(
    ("allow", "error", "match"),
    [
        (["scheduler"], ValueError, "nothing is named 'scheduler'.*'item', 'main', .*'stop_trigger'"),
        ("item", TypeError, r"allow: expected a list of names, such as \['scheduler'\], got 'item'"),
        ([1], TypeError, "expected a list of names"),
    ],
)
def test_resume_with_an_invalid_allow_raises(tmp_path: Path, allow: Any, error: Any, match: str) -> None:
    train(make(tmp_path, Averager(0.9), make_optimizer()), lambda: None)
    with pytest.raises(error, match=match):
        resume(tmp_path, lambda _: Averager(0.9), allow=allow)


def test_snapshot_contains_digests_of_arguments_and_not_their_text(tmp_path: Path) -> None:
    item: Any = Averager(0.9)
    item.token = "hunter2-secret"
    train(make(tmp_path, item, make_optimizer()), lambda: None)
    assert b"hunter2-secret" not in (tmp_path / "snapshot_iter_4").read_bytes()


# -- extensions of one class, in another order -------------------------------------------------------------------------


class Total(pte.Extension):
    """Extension of a user that sums a value."""

    def __init__(self, key: str) -> None:
        self.key, self.total = key, 0.0

    def __call__(self, manager: pte.Manager) -> None:
        self.total += float(manager.observation[self.key])

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


def train_two(directory: Path, items: list[Any], stop: int, is_resumed: bool = False) -> list[Any]:
    options: Any = {"iters_per_epoch": 6, "out_dir": directory, "sinks": []}
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), 1, [*items, extensions.snapshot(trigger=(2, "iteration"))], **options
    )
    if is_resumed:
        manager.resume()
    while manager.iteration < stop:
        with manager.run_iteration():
            pte.report({"a": 10.0 + manager.iteration, "b": 0.5 + manager.iteration})
    manager.close()
    return items


def test_resume_with_extensions_of_one_class_in_another_order_restores_each_by_its_key(tmp_path: Path) -> None:
    train_two(tmp_path, [extensions.MinValue("a", (1, "iteration")), extensions.MinValue("b", (1, "iteration"))], 4)
    b, a = train_two(
        tmp_path, [extensions.MinValue("b", (1, "iteration")), extensions.MinValue("a", (1, "iteration"))], 6, True
    )
    assert (a.best_value, b.best_value) == (10.0, 0.5)


def test_resume_with_extensions_of_a_user_in_another_order_restores_each(tmp_path: Path) -> None:
    train_two(tmp_path, [Total("a"), Total("b"), Total("a")], 4)
    last, b, a = train_two(tmp_path, [Total("a"), Total("b"), Total("a")][::-1], 6, True)
    assert (a.total, b.total, last.total) == (75.0, 18.0, 75.0)


def test_resume_without_the_first_of_two_extensions_names_it_and_keeps_the_other(tmp_path: Path) -> None:
    train_two(tmp_path, [Total("a"), Total("b")], 4)
    with pytest.raises(ValueError, match=r"extensions: only in the snapshot: .*pass allow="):
        train_two(tmp_path, [Total("b")], 6, True)


def test_resume_with_triggers_in_another_order_restores_each_by_its_key(tmp_path: Path) -> None:
    def make_entries(keys: str) -> list[Any]:
        return [pte.ExtensionEntry(Total(key), trigger=triggers.MaxValueTrigger(key, (1, "iteration"))) for key in keys]

    train_two(tmp_path, make_entries("ab"), 4)
    b, a = (entry.extension for entry in train_two(tmp_path, make_entries("ba"), 6, True))
    assert (a.total, b.total) == (75.0, 18.0)


def test_resume_with_schedulers_of_two_optimizers_in_another_order_restores_each(tmp_path: Path) -> None:
    def run(is_swapped: bool, epochs: int, is_resumed: bool = False) -> Any:
        optimizers = {"a": make_optimizer(), "b": make_optimizer()}
        schedulers = {
            name: lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.5) for name, optimizer in optimizers.items()
        }
        names = "ba" if is_swapped else "ab"
        entries: list[Any] = [extensions.LRScheduler(schedulers[name], trigger=(1, "iteration")) for name in names]
        manager = pte.ExtensionsManager(
            nn.Linear(1, 1),
            epochs,
            [*entries, extensions.snapshot()],
            optimizers=optimizers,
            iters_per_epoch=2,
            out_dir=tmp_path,
            sinks=[],
        )
        if is_resumed:
            manager.resume()
        else:
            schedulers["a"].last_epoch = 50
        while not manager.stop_trigger:
            with manager.run_iteration():
                for optimizer in optimizers.values():
                    optimizer.step()
        return {name: scheduler.last_epoch for name, scheduler in schedulers.items()}

    assert run(False, 1) == {"a": 52, "b": 2}
    assert run(True, 2, True) == {"a": 54, "b": 4}


# -- metrics and options that belong to a state ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        (
            lambda: extensions.MinValue("a"),
            lambda: extensions.MinValue("b"),
            "the extension 'min_value', .*is of the metric 'a', but the metric is 'b' now",
        ),
        (
            lambda: extensions.MicroAverage("a", "b", "c"),
            lambda: extensions.MicroAverage("b", "a", "c"),
            r"are of the metrics \['a', 'b'\], but the metrics are \['b', 'a'\] now",
        ),
        (
            lambda: extensions.ExponentialShift("lr", 0.5),
            lambda: extensions.ExponentialShift("momentum", 0.5),
            "are of the option 'lr', but the option is 'momentum' now",
        ),
    ],
)
def test_resume_with_another_metric_or_option_is_refused_and_names_both(
    tmp_path: Path, first: Any, second: Any, match: str
) -> None:
    train(make(tmp_path, None, make_optimizer(), 1, first()), lambda: pte.report({"a": 1.0, "b": 2.0}))
    with pytest.raises(ValueError, match=match):
        make(tmp_path, None, make_optimizer(), 2, second()).resume()
    manager = make(tmp_path, None, make_optimizer(), 2, second())
    assert manager.resume(allow=[str(manager._extensions.names()[0])])


def test_resume_of_a_shift_uses_its_new_rate_and_initial_value(tmp_path: Path) -> None:
    train(make(tmp_path, None, make_optimizer(), 1, extensions.ExponentialShift("lr", 0.5, init=1.0)), lambda: None)
    optimizer = make_optimizer()
    manager = make(tmp_path, None, optimizer, 2, extensions.ExponentialShift("lr", 0.1, init=10.0))
    manager.resume()
    with manager.run_iteration():
        assert optimizer.param_groups[0]["lr"] == pytest.approx(10.0 * 0.1**4)


def test_resume_with_another_ranking_of_snapshots_ranks_by_the_new_metric(tmp_path: Path) -> None:
    def run(key: str, epochs: int) -> pte.ExtensionsManager:
        saved = extensions.snapshot(trigger=(3, "iteration"), keep_best=(key, "min", 1), at_end=False)
        options: Any = {"iters_per_epoch": 4, "out_dir": tmp_path, "sinks": []}
        manager = pte.ExtensionsManager(nn.Linear(1, 1), epochs, [saved], **options)
        manager.resume()
        while not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"a": 1.0 + manager.iteration, "b": 20.0 - manager.iteration})
        return manager

    run("a", 1)
    assert [checkpoint.values["b"] for checkpoint in run("b", 3).run.checkpoints()] == [18.0, 10.0]  # best by a, by b


def test_best_snapshot_of_two_rankings_is_that_of_the_first_for_resume_and_load(tmp_path: Path) -> None:
    def make_manager() -> pte.ExtensionsManager:
        snapshots = [
            extensions.snapshot(f"{key}_{{.iteration}}", trigger=(1, "iteration"), keep_best=(key, "min", 1))
            for key in ("loss", "error")
        ]
        return pte.ExtensionsManager(nn.Linear(1, 1), 1, snapshots, iters_per_epoch=3, out_dir=tmp_path, sinks=[])

    with make_manager() as manager:
        while not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"loss": abs(manager.iteration - 1), "error": -manager.iteration})
    resumed = make_manager().resume("best")
    assert resumed is not None
    loaded = pte.load(tmp_path, "best")
    assert (resumed.step, resumed.path) == (loaded.step, loaded.path)
    assert loaded.values["loss"] == min(item.values["loss"] for item in manager.run.checkpoints())


def nest(optimizer: Any, gamma: float, depth: int) -> Any:
    scheduler: Any = lr_scheduler.ExponentialLR(optimizer, gamma)
    for _ in range(depth):
        scheduler = lr_scheduler.ChainedScheduler([scheduler], optimizer=optimizer)
    return scheduler


@pytest.mark.parametrize("depth", [0, 2, 8])
def test_resume_that_allows_nested_schedulers_logs_the_arguments_that_it_replaces(
    tmp_path: Path, caplog: Any, depth: int
) -> None:
    optimizer = make_optimizer()
    scheduler = nest(optimizer, 0.9, depth)
    with make(tmp_path, scheduler, optimizer) as manager:
        train(manager, scheduler.step)
    with caplog.at_level(logging.INFO):
        item = resume(tmp_path, lambda optimizer: nest(optimizer, 0.5, depth), allow=["item"])
    (message,) = [text for text in caplog.messages if "the script decides" in text]
    assert message.count("gamma of the state object 'item' (ExponentialLR) is 0.5, not 0.9") == 1
    for _ in range(depth):
        item = item._schedulers[0]
    assert item.gamma == 0.5
