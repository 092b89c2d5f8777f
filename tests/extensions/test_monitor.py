"""Values of Monitor, compared with values computed by hand on a clock that the tests advance."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._data import meter
from pte_tracking._data.meter import batch_size
from pte_tracking.extensions import monitor
from pte_tracking.updaters import StandardUpdater

WAIT, WORK = 1.0, 3.0  # seconds per iteration
TIMES = {"monitor/step_seconds": 4.0, "monitor/data_wait_share": 0.25, "monitor/samples_per_second": 2.0}


class Clock:
    """Clock that stands still until it is advanced."""

    def __init__(self) -> None:
        self.now = 1000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds


class SlowBatches:
    """Six batches of eight samples with four tokens each, each of which takes a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(6):
            self.clock.advance(WAIT)
            yield torch.ones(8, 4)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (meter, monitor):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def options_for(folder: Path, *added: Any, trigger: Any = (1, "iteration")) -> dict[str, Any]:
    return {
        "models": nn.Linear(4, 1),
        "max_epochs": 1,
        "extensions": [extensions.LogReport(trigger=trigger), *added],
        "out_dir": folder,
    }


def times_of(manager: Any) -> list[dict[str, float]]:
    return [{key: row.values[key] for key in TIMES if key in row.values} for row in manager.run.rows()]


def train_plainly(clock: Clock, options: dict[str, Any]) -> Any:
    manager = pte.ExtensionsManager(**options)
    manager.resume()
    for _ in manager.batches(SlowBatches(clock)):
        with manager.run_iteration():
            clock.advance(WORK)
    return manager


def train_with_trainer(clock: Clock, options: dict[str, Any]) -> Any:
    class Updater(StandardUpdater):
        def update_core(self) -> None:
            self.next_batch()
            clock.advance(WORK)

    optimizer: Any = torch.optim.SGD(options["models"].parameters(), lr=0.1)
    optimizer.target = options["models"]
    updater = Updater(SlowBatches(clock), optimizer, loss_func=lambda: None)
    trainer = pte.Trainer(updater, (1, "epoch"), options["out_dir"], options["extensions"])
    trainer.run()
    return trainer.manager


def train_with_ignite(clock: Clock, options: dict[str, Any]) -> Any:
    engine = Engine(lambda engine, batch: clock.advance(WORK))
    manager = pte.IgniteExtensionsManager(engine, **options)
    engine.run(SlowBatches(clock), max_epochs=1)
    return manager


@pytest.mark.parametrize("train", [train_plainly, train_with_trainer, train_with_ignite])
def test_monitor_slow_loader_reports_times_without_other_extensions(train: Any, clock: Clock, tmp_path: Path) -> None:
    manager = train(clock, options_for(tmp_path, extensions.Monitor(), lambda manager: clock.advance(100)))
    # The first iteration is not measured, because it starts the loader.
    assert times_of(manager) == [{}, *[TIMES] * 5]


def test_monitor_iterations_of_different_duration_give_rate_of_interval(clock: Clock, tmp_path: Path) -> None:
    durations = iter([0.0, 3.0, 1.0, 1.0, 5.0, 2.0])
    manager = pte.ExtensionsManager(**options_for(tmp_path, extensions.Monitor(), trigger=(6, "iteration")))
    for _ in manager.batches(SlowBatches(clock)):
        with manager.run_iteration():
            clock.advance(next(durations))
    (row,) = manager.run.rows()
    seconds = 4 + 2 + 2 + 6 + 3
    assert row.values["monitor/samples_per_second"] == pytest.approx(5 * 8 / seconds)
    assert row.values["monitor/data_wait_share"] == pytest.approx(5 / seconds)
    assert row.values["monitor/step_seconds"] == pytest.approx(seconds / 5)


def test_monitor_after_resume_does_not_count_batches_read_again(clock: Clock, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(manager: pte.Manager) -> None:
        if manager.iteration == 4:
            raise KilledError

    snapshot = extensions.snapshot(trigger=(3, "iteration"))
    with pytest.raises(KilledError):
        train_plainly(clock, options_for(tmp_path, extensions.Monitor(), snapshot, kill))
    added = extensions.Monitor(), extensions.snapshot(trigger=(3, "iteration"))
    manager = train_plainly(clock, options_for(tmp_path, *added))
    # Iterations 1 to 3 of the first session, and 4 to 6 of the second one.
    assert times_of(manager) == [{}, TIMES, TIMES, {}, TIMES, TIMES]


def test_monitor_bare_loop_reports_time_between_iterations(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    added = extensions.Monitor(samples=8, tokens=16)
    manager = pte.ExtensionsManager(**options_for(tmp_path, added), iters_per_epoch=6)
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        for _ in SlowBatches(clock):
            with manager.run_iteration():
                clock.advance(WORK)
    rows = [row.values for row in manager.run.rows()]
    assert rows[1] == {
        "monitor/step_seconds": 4.0,
        "monitor/samples_per_second": 2.0,
        "monitor/tokens_per_second": 4.0,
    }
    assert caplog.text.count("manager.batches(loader)") == 1


def test_monitor_function_counts_tokens_of_each_batch(clock: Clock, tmp_path: Path) -> None:
    added = extensions.Monitor(tokens=lambda batch: batch.sum(), samples=len)
    manager = train_plainly(clock, options_for(tmp_path, added))
    last = [*manager.run.rows()][-1].values
    assert (last["monitor/tokens_per_second"], last["monitor/samples_per_second"]) == (32 / 4, 8 / 4)


def test_monitor_rare_trigger_divides_by_iterations(clock: Clock, tmp_path: Path) -> None:
    entry = pte.ExtensionEntry(extensions.Monitor(samples=8), trigger=(2, "iteration"))
    manager = train_plainly(clock, options_for(tmp_path, entry, trigger=(2, "iteration")))
    assert times_of(manager) == [{}, TIMES, TIMES]


def test_monitor_unknown_batch_logs_once_and_reports_no_rate(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = pte.ExtensionsManager(**options_for(tmp_path, extensions.Monitor()))
    for _ in manager.batches([object(), object()]):
        with manager.run_iteration():
            clock.advance(WORK)
    assert "monitor/samples_per_second" not in manager.observation
    assert manager.observation["monitor/step_seconds"] == WORK
    assert caplog.text.count("Pass samples=") == 1


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.ones(3, 2), 3),
        ((torch.ones(5, 2), torch.ones(5)), 5),
        ({"text": ["a", "b"], "label": torch.ones(2)}, 2),
        ([[torch.ones(3, 9, 9)] * 4, [{}] * 4], 4),
        (torch.tensor(1.0), None),
        (object(), None),
    ],
)
def test_batch_size_common_batches_is_first_length(batch: Any, expected: int | None) -> None:
    assert batch_size(batch) == expected


def gradient_norm(folder: Path, step: Any, **options: Any) -> Any:
    """Train one iteration of a model whose gradient is (3, 4), and return the reported norm."""
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    manager = pte.ExtensionsManager(
        model, 1, [extensions.Monitor(**options)], optimizers=optimizer, out_dir=folder, sinks=[]
    )
    for x in manager.batches([torch.tensor([[3.0, 4.0]])]):
        with manager.run_iteration():
            step(model, optimizer, model(x).sum())
    return manager.observation.get("monitor/gradient_norm")


def clear_after_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


def clip_before_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def step_with_closure(model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.step(lambda: loss.backward())  # type: ignore[arg-type, no-untyped-call]


def accumulate(model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("step", "expected"), [(clear_after_step, 5), (clip_before_step, 1), (step_with_closure, 5), (accumulate, None)]
)
def test_monitor_optimizer_step_reports_gradient_norm(step: Any, expected: float | None, tmp_path: Path) -> None:
    norm = gradient_norm(tmp_path, step)
    assert norm == (None if expected is None else pytest.approx(expected))


def test_monitor_gradient_norm_off_measures_no_norm(tmp_path: Path) -> None:
    assert gradient_norm(tmp_path, clear_after_step, gradient_norm=False) is None


def test_monitor_several_optimizers_report_joint_norm_and_each_learning_rate(tmp_path: Path) -> None:
    first, second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    groups = [{"params": [second.weight]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.125}]
    optimizers = {"a": torch.optim.SGD(first.parameters(), lr=0.5), "b": torch.optim.SGD(groups, lr=0.25)}
    manager = pte.ExtensionsManager(
        {"a": first, "b": second}, 1, [extensions.Monitor()], optimizers=optimizers, out_dir=tmp_path, sinks=[]
    )
    for x in manager.batches([torch.ones(1, 1)]):
        with manager.run_iteration(step_optimizers=["a", "b"]):
            (3 * first(x) + 4 * second(x)).sum().backward()
    observed = dict(manager.observation)
    assert observed.pop("monitor/gradient_norm") == pytest.approx(5)
    assert observed == {"monitor/lr/a": 0.5, "monitor/lr/b/0": 0.25, "monitor/lr/b/1": 0.125}


def test_monitor_initialized_gpu_reports_memory(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A GPU is not available in the tests.
    statistics = {
        "allocated_bytes.all.current": 2e6,
        "reserved_bytes.all.current": 4e6,
        "allocated_bytes.all.peak": 3e6,
    }
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: statistics)
    manager = train_plainly(clock, options_for(tmp_path, extensions.Monitor()))
    for row in manager.run.rows():
        memory = {key: value for key, value in row.values.items() if "gpu" in key}
        assert memory == {
            "monitor/gpu_memory_allocated_megabytes": 2,
            "monitor/gpu_memory_reserved_megabytes": 4,
            "monitor/gpu_memory_peak_megabytes": 3,
        }


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"samples": "eight"}, TypeError), ({"tokens": True}, TypeError), ({"tokens": 0}, ValueError)],
)
def test_monitor_invalid_amount_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        extensions.Monitor(**arguments)
